//! The container that map tasks fill: rows, converted to messages.

use std::fmt;
use std::sync::Arc;

use kmr_core::{BoxError, Record, Rows};

use super::error::KafkaWriteError;
use super::message::KafkaMessage;

/// Converts a row to a message.
pub(super) type ToMessage<T> = Arc<dyn Fn(T) -> Result<KafkaMessage, KafkaWriteError> + Send + Sync>;

/// Rows of type `T`, converted to messages.
pub struct KafkaRows<T> {
    messages: Vec<KafkaMessage>,
    bytes: usize,
    overhead: usize,
    /// Whether messages continue the trace of their record.
    continues_traces: bool,
    to_message: ToMessage<T>,
}

impl<T> KafkaRows<T> {
    pub(super) fn new(to_message: ToMessage<T>, continues_traces: bool) -> Self {
        Self { messages: Vec::new(), bytes: 0, overhead: 0, continues_traces, to_message }
    }

    fn add(&mut self, message: KafkaMessage) {
        self.bytes += message.bytes();
        self.overhead += message.overhead();
        self.messages.push(message);
    }

    pub(super) fn into_messages(self) -> Vec<KafkaMessage> {
        self.messages
    }

    /// Updates the sizes after a split.
    fn update_sizes(&mut self) {
        self.bytes = self.messages.iter().map(KafkaMessage::bytes).sum();
        self.overhead = self.messages.iter().map(KafkaMessage::overhead).sum();
    }
}

impl<T> fmt::Debug for KafkaRows<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages = self.messages.len();
        f.debug_struct("KafkaRows").field("messages", &messages).field("bytes", &self.bytes).finish()
    }
}

impl<T: Send + 'static> Rows for KafkaRows<T> {
    type Item = T;

    fn new_empty(&self) -> Self {
        Self::new(self.to_message.clone(), self.continues_traces)
    }

    fn push(&mut self, row: T) -> Result<(), BoxError> {
        let message = (self.to_message)(row)?;
        self.add(message);
        Ok(())
    }

    fn push_from(&mut self, row: T, record: &Record<'_>) -> Result<(), BoxError> {
        let message = (self.to_message)(row)?;
        let message = if self.continues_traces { message.continuing(record) } else { message };
        self.add(message);
        Ok(())
    }

    fn len(&self) -> usize {
        self.messages.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn resident_bytes(&self) -> Option<usize> {
        Some(self.bytes + self.overhead)
    }

    fn truncate(&mut self, len: usize) {
        for removed in self.messages.drain(len.min(self.messages.len())..) {
            self.bytes -= removed.bytes();
            self.overhead -= removed.overhead();
        }
    }

    fn split_off(&mut self, at: usize) -> Self {
        let messages = self.messages.split_off(at);
        let mut right = Self { messages, ..self.new_empty() };
        right.update_sizes();
        self.update_sizes();
        right
    }
}

#[cfg(test)]
mod tests {
    use kmr_core::OwnedRecord;

    use super::*;

    #[test]
    fn sizes_are_updated_by_truncation_and_splits() {
        let mut rows = KafkaRows::<&str>::new(Arc::new(|row: &str| Ok(row.into())), true);
        ["a", "bb", "ccc", "dddd"].into_iter().for_each(|row| rows.push(row).unwrap());
        assert_eq!((rows.len(), rows.bytes()), (4, 10));
        let right = rows.split_off(1);
        assert_eq!((rows.len(), rows.bytes(), right.len(), right.bytes()), (1, 1, 3, 9));
        let mut right = right;
        right.truncate(1);
        assert_eq!((right.len(), right.bytes()), (1, 2));
        assert_eq!(right.resident_bytes(), Some(2 + size_of::<KafkaMessage>()));
        assert_eq!(right.new_empty().resident_bytes(), Some(0));
    }

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn pushed(message: KafkaMessage, record: &OwnedRecord, continues_traces: bool) -> KafkaMessage {
        let mut rows = KafkaRows::<KafkaMessage>::new(Arc::new(Ok), continues_traces);
        rows.push_from(message, &record.as_record()).unwrap();
        assert_eq!(rows.bytes(), rows.messages[0].bytes(), "the added headers count");
        rows.into_messages().remove(0)
    }

    #[test]
    fn a_message_continues_the_trace_of_its_record() {
        let text = |value: &str| Some(value.as_bytes().to_vec());
        let untraced = OwnedRecord::new("t", 0, 0).with_header("a", text("1"));
        let record = untraced.clone().with_header("traceparent", text(PARENT));
        let record = record.with_header("tracestate", text("vendor=x"));
        let plain = KafkaMessage::new("p");
        let traced = plain.clone().with_header("traceparent", PARENT).with_header("tracestate", "vendor=x");
        assert_eq!(pushed(plain.clone(), &record, true), traced);
        assert_eq!(pushed(plain.clone(), &record, false), plain);
        assert_eq!(pushed(plain.clone(), &untraced, true), plain);
        let invalid = OwnedRecord::new("t", 0, 0).with_header("traceparent", text("00-0-0-01"));
        assert_eq!(pushed(plain.clone(), &invalid, true), plain);
        // A copy of the record has its headers, and a mapper may have started a span of its own.
        assert_eq!(pushed(KafkaMessage::from(&record), &record, true), KafkaMessage::from(&record));
        let own = KafkaMessage::new("p").with_header("traceparent", PARENT.replace("00f0", "00f1"));
        assert_eq!(pushed(own.clone(), &record, true), own);
    }
}
