//! The memory of messages' headers.
//!
//! librdkafka keeps them as they are in the response, after the payload, and parses them when they
//! are read for the first time. Until then no function returns their size, and parsing costs as
//! much as fetching a small record. So the distance to the next message shows it. It is an
//! estimate: the next message may be of another buffer. So headers are parsed once for the last
//! message of a run, and for each distance that is longer than those that were right before.

use std::ffi::CStr;
use std::ptr;

use rdkafka::bindings as rd;

use super::raw::{rd_kafka_header_get_all, rd_kafka_message_detach_headers};

/// A distance without headers is at most this long. The largest one has the head of a batch (61
/// bytes) and the lengths, attributes and differences of a record (up to 26).
const FRAME: usize = 96;

/// Measures the headers of the messages of one partition, in their order.
#[derive(Debug, Default)]
pub(super) struct HeaderMeter {
    /// Longest distance that was found to be one of headers.
    known: usize,
}

impl HeaderMeter {
    /// Bytes of the headers of `message`, which `next` follows.
    ///
    /// # Safety
    /// librdkafka has returned both messages, they are alive, and no other thread uses `message`.
    #[inline]
    pub(super) unsafe fn between(
        &mut self,
        message: &rd::rd_kafka_message_t,
        next: &rd::rd_kafka_message_t,
    ) -> usize {
        let distance = content(message).zip(content(next));
        // The next one may be at a lower address in another buffer: then the distance is very long.
        let distance = distance.map_or(usize::MAX, |((_, end), (start, _))| start.wrapping_sub(end));
        if distance <= FRAME {
            return 0;
        }
        if distance <= self.known {
            return distance;
        }
        // SAFETY: the caller's promise.
        let bytes = unsafe { parsed(message) };
        // Besides the parsed bytes, the distance has a few for each header, and the frame.
        if distance <= bytes.saturating_mul(2) + FRAME && bytes > 0 {
            self.known = distance;
        }
        bytes
    }
}

/// Where key and payload of a message begin and end in its buffer. Empty ones are not in there.
#[inline]
fn content(message: &rd::rd_kafka_message_t) -> Option<(usize, usize)> {
    let (key, payload) = (message.key as usize, message.payload as usize);
    match (message.key_len, message.len) {
        (0, 0) => None,
        (key_len, 0) => Some((key, key + key_len)),
        (0, len) => Some((payload, payload + len)),
        (_, len) => Some((key, payload + len)),
    }
}

/// Bytes of the names and values of a message's headers. The message does not keep what is parsed,
/// and parses again when its headers are read.
///
/// # Safety
/// librdkafka has returned the message, it is alive, and no other thread uses it.
pub(super) unsafe fn parsed(message: &rd::rd_kafka_message_t) -> usize {
    let mut headers = ptr::null_mut();
    let mut bytes = 0;
    // SAFETY: the caller's promise. The list belongs to this call once it is detached, and is
    // destroyed at its end. The out pointers are valid; they are written when the calls return 0.
    unsafe {
        let message = ptr::from_ref(message).cast_mut();
        if rd_kafka_message_detach_headers(message, &raw mut headers) != 0 {
            return 0;
        }
        for index in 0..rd::rd_kafka_header_cnt(headers) {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            if rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size) == 0 {
                bytes += CStr::from_ptr(name).to_bytes().len() + size;
            }
        }
        rd::rd_kafka_headers_destroy(headers);
    }
    bytes
}
