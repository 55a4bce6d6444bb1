//! A `reduce_err` for tests, which keeps dead letters as texts.

use async_trait::async_trait;

use crate::dead_letter::DeadLetter;
use crate::error::BoxError;
use crate::reducer::{BatchOptions, Chunk, Delivery, Reducer, Rows};
use crate::test_reducer::Collect;

/// A `reduce_err` that keeps the texts of dead letters.
#[derive(Clone, Default)]
pub(in crate::graph::run::tests) struct DeadLetters {
    pub(in crate::graph::run::tests) sink: Collect<String>,
    with_content: bool,
}

impl DeadLetters {
    /// Adds each record's payload to the text, or the reason why it is missing.
    pub(in crate::graph::run::tests) fn with_content() -> Self {
        Self { sink: Collect::default(), with_content: true }
    }

    /// Delivers to this sink.
    pub(in crate::graph::run::tests) fn with_sink(sink: Collect<String>) -> Self {
        Self { sink, with_content: false }
    }

    pub(in crate::graph::run::tests) fn texts(&self) -> Vec<String> {
        self.sink.rows()
    }
}

/// Dead letters as texts. The error branch encodes them on the map side.
#[derive(Default)]
pub(in crate::graph::run::tests) struct DeadLetterRows {
    texts: Vec<String>,
    with_content: bool,
}

impl Rows for DeadLetterRows {
    type Item = DeadLetter;

    fn new_empty(&self) -> Self {
        Self { texts: Vec::new(), with_content: self.with_content }
    }

    fn push(&mut self, dead_letter: DeadLetter) -> Result<(), BoxError> {
        let mut text = dead_letter.to_string();
        if self.with_content {
            let payload = dead_letter.record.as_ref().map(|record| record.payload().unwrap_or_default());
            let payload = payload.map(|payload| String::from_utf8_lossy(payload).into_owned());
            text = format!("{text} [{}]", payload.or(dead_letter.missing_reason).unwrap_or_default());
        }
        self.texts.push(text);
        Ok(())
    }

    fn len(&self) -> usize {
        self.texts.len()
    }

    fn bytes(&self) -> usize {
        self.texts.iter().map(String::len).sum()
    }

    fn truncate(&mut self, len: usize) {
        self.texts.truncate(len);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self { texts: self.texts.split_off(at), with_content: self.with_content }
    }
}

#[async_trait]
impl Reducer for DeadLetters {
    type Rows = DeadLetterRows;
    type Output = usize;

    fn options(&self) -> BatchOptions {
        self.sink.options()
    }

    fn new_rows(&self) -> DeadLetterRows {
        DeadLetterRows { texts: Vec::new(), with_content: self.with_content }
    }

    fn accept(&mut self, chunk: Chunk<DeadLetterRows>) -> Result<(), BoxError> {
        self.sink.accept(Chunk::new(chunk.rows.texts, chunk.sources))
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
        self.sink.freeze()
    }
}
