//! Messages of one partition, as the graph reads them.

use std::ffi::CStr;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdkafka::bindings as rd;

use super::raw::{bytes, rd_kafka_header_get_all, rd_kafka_message_headers};
use crate::client::handle::ClientRef;
use crate::member::RecordBatch;
use crate::record::{Header, Record, RecordSource};

/// Messages of one partition, destroyed together.
pub(super) struct MessageBatch {
    topic: Arc<str>,
    messages: Vec<NonNull<rd::rd_kafka_message_t>>,
    // Last: the client must outlive the messages.
    _client: ClientRef,
}

// SAFETY: messages may be read and destroyed from any thread, one at a time; a batch is not `Sync`
// (invariant 5).
unsafe impl Send for MessageBatch {}

impl MessageBatch {
    #[inline]
    pub(super) fn new(topic: Arc<str>, capacity: usize, client: ClientRef) -> Self {
        Self { topic, messages: Vec::with_capacity(capacity), _client: client }
    }

    #[inline]
    pub(super) fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// Takes ownership of a message.
    ///
    /// # Safety
    /// librdkafka has just returned the message, and no other value owns it (invariant 2).
    #[inline]
    pub(super) unsafe fn push(&mut self, message: NonNull<rd::rd_kafka_message_t>) {
        self.messages.push(message);
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.messages.shrink_to_fit();
    }
}

impl RecordBatch for MessageBatch {
    fn len(&self) -> usize {
        self.messages.len()
    }

    fn offset(&self, index: usize) -> i64 {
        // SAFETY: the batch owns its messages.
        unsafe { self.messages[index].as_ref() }.offset
    }

    fn record(&self, index: usize) -> Record<'_> {
        // SAFETY: the batch owns its messages, and the record borrows the batch. `KafkaMessage` is
        // a transparent wrapper.
        let message = unsafe { self.messages[index].cast::<KafkaMessage>().as_ref() };
        let raw = &message.0;
        Record {
            topic: &self.topic,
            partition: raw.partition,
            offset: raw.offset,
            // SAFETY: librdkafka guarantees that many readable bytes while the message lives.
            key: unsafe { bytes(raw.key, raw.key_len) },
            // SAFETY: as above.
            payload: unsafe { bytes(raw.payload, raw.len) },
            source: message,
        }
    }
}

impl Drop for MessageBatch {
    fn drop(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: owned by this batch alone (invariant 2), destroyed once: `drain` empties the
            // list.
            unsafe { rd::rd_kafka_message_destroy(message.as_ptr()) };
        }
    }
}

/// A message as the source of its timestamp and headers.
#[repr(transparent)]
struct KafkaMessage(rd::rd_kafka_message_t);

impl RecordSource for KafkaMessage {
    fn timestamp(&self) -> Option<i64> {
        // SAFETY: the message is alive; a null timestamp type pointer is allowed.
        let timestamp = unsafe { rd::rd_kafka_message_timestamp(&raw const self.0, ptr::null_mut()) };
        (timestamp >= 0).then_some(timestamp)
    }

    fn header(&self, index: usize) -> Option<Header<'_>> {
        let mut headers = ptr::null_mut();
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the message is alive and on one thread (invariant 5); the list and what it points
        // to live as long as the message. The out pointers are valid; they are written when the
        // call returns 0.
        unsafe {
            if rd_kafka_message_headers(&raw const self.0, &raw mut headers) != 0 {
                return None;
            }
            if rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size) != 0 {
                return None;
            }
            let key = CStr::from_ptr(name).to_string_lossy();
            Some(Header { key, value: bytes(value.cast_mut(), size) })
        }
    }
}
