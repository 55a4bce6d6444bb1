//! The container that map tasks fill: rows, converted to messages.

use std::fmt;
use std::sync::Arc;

use kmr_core::{BoxError, Rows};

use super::error::KafkaWriteError;
use super::message::KafkaMessage;

/// Converts a row to a message.
pub(super) type ToMessage<T> = Arc<dyn Fn(T) -> Result<KafkaMessage, KafkaWriteError> + Send + Sync>;

/// Rows of type `T`, converted to messages.
pub struct KafkaRows<T> {
    messages: Vec<KafkaMessage>,
    bytes: usize,
    overhead: usize,
    to_message: ToMessage<T>,
}

impl<T> KafkaRows<T> {
    pub(super) fn new(to_message: ToMessage<T>) -> Self {
        Self { messages: Vec::new(), bytes: 0, overhead: 0, to_message }
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
        Self::new(self.to_message.clone())
    }

    fn push(&mut self, row: T) -> Result<(), BoxError> {
        let message = (self.to_message)(row)?;
        self.bytes += message.bytes();
        self.overhead += message.overhead();
        self.messages.push(message);
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
        let mut right = Self { messages, bytes: 0, overhead: 0, to_message: self.to_message.clone() };
        right.update_sizes();
        self.update_sizes();
        right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_updated_by_truncation_and_splits() {
        let mut rows = KafkaRows::<&str>::new(Arc::new(|row: &str| Ok(row.into())));
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
}
