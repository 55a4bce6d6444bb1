//! `reduce_err` of the tests.

use async_trait::async_trait;

use crate::dead_letter::DeadLetter;
use crate::error::BoxError;
use crate::reducer::{BatchOptions, Chunk, Delivery, Reducer, Rows};
use crate::test_reducer::Collect;

/// `reduce_err` that keeps the letters' texts.
#[derive(Clone, Default)]
pub(in crate::graph::run::tests) struct Letters(
    pub(in crate::graph::run::tests) Collect<String>,
    pub(in crate::graph::run::tests) bool,
);

impl Letters {
    /// With each letter's payload, or why there is none, behind its text.
    pub(in crate::graph::run::tests) fn with_content() -> Self {
        Self(Collect::default(), true)
    }

    pub(in crate::graph::run::tests) fn texts(&self) -> Vec<String> {
        self.0.rows()
    }
}

/// Dead letters as texts: encoded on the map side.
#[derive(Default)]
pub(in crate::graph::run::tests) struct LetterRows(Vec<String>, bool);

impl Rows for LetterRows {
    type Item = DeadLetter;

    fn new_empty(&self) -> Self {
        Self(Vec::new(), self.1)
    }

    fn push(&mut self, letter: DeadLetter) -> Result<(), BoxError> {
        let mut text = letter.to_string();
        if self.1 {
            let payload = letter.record.as_ref().map(|record| record.payload().unwrap_or_default());
            let payload = payload.map(|payload| String::from_utf8_lossy(payload).into_owned());
            text = format!("{text} [{}]", payload.or(letter.missing_reason).unwrap_or_default());
        }
        self.0.push(text);
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
        Self(self.0.split_off(at), self.1)
    }
}

#[async_trait]
impl Reducer for Letters {
    type Rows = LetterRows;
    type Output = usize;

    fn options(&self) -> BatchOptions {
        self.0.options()
    }

    fn new_rows(&self) -> LetterRows {
        LetterRows(Vec::new(), self.1)
    }

    fn accept(&mut self, chunk: Chunk<LetterRows>) -> Result<(), BoxError> {
        self.0.accept(Chunk::new(chunk.rows.0, chunk.sources))
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
        self.0.freeze()
    }
}
