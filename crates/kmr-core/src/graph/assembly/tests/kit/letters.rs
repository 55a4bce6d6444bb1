//! `reduce_err` of the tests.

use async_trait::async_trait;

use crate::dead_letter::DeadLetter;
use crate::error::BoxError;
use crate::reducer::{BatchOptions, Chunk, Delivery, Reducer, Rows};
use crate::test_reducer::Collect;

/// `reduce_err` that keeps the letters' texts.
#[derive(Clone, Default)]
pub(in crate::graph::assembly::tests) struct Letters(pub(in crate::graph::assembly::tests) Collect<String>);

impl Letters {
    pub(in crate::graph::assembly::tests) fn texts(&self) -> Vec<String> {
        self.0.rows()
    }
}

/// Dead letters as texts: encoded on the map side.
#[derive(Default)]
pub(in crate::graph::assembly::tests) struct LetterRows(Vec<String>);

impl Rows for LetterRows {
    type Item = DeadLetter;

    fn fresh(&self) -> Self {
        Self::default()
    }

    fn push(&mut self, letter: DeadLetter) -> Result<(), BoxError> {
        self.0.push(letter.to_string());
        Ok(())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(String::len).sum()
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self(self.0.split_off(at))
    }
}

#[async_trait]
impl Reducer for Letters {
    type Rows = LetterRows;
    type Output = usize;

    fn options(&self) -> BatchOptions {
        self.0.options()
    }

    fn rows(&self) -> LetterRows {
        LetterRows::default()
    }

    fn accept(&mut self, chunk: Chunk<LetterRows>) -> Result<(), BoxError> {
        self.0.accept(Chunk::new(chunk.rows.0, chunk.sources))
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
        self.0.freeze()
    }
}
