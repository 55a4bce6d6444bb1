//! Strings, bytes and error codes of C.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;
use std::{ptr, slice};

use rdkafka::bindings as rd;
use rdkafka::error::RDKafkaErrorCode;

/// The error code of a number. Brokers newer than the library send numbers that its enum does not
/// have. Reading these as the enum would be undefined behaviour, so they become `Unknown`.
pub(super) fn known(number: i32) -> RDKafkaErrorCode {
    static KNOWN: OnceLock<HashMap<i32, RDKafkaErrorCode>> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let (mut descriptions, mut count) = (ptr::null(), 0);
        // SAFETY: the out pointers are valid; the table is static, and contains only codes of this
        // library.
        let table = unsafe {
            rd::rd_kafka_get_err_descs(&raw mut descriptions, &raw mut count);
            if descriptions.is_null() { &[] } else { slice::from_raw_parts(descriptions, count) }
        };
        // A table entry without a name is a gap: its code is 0.
        let named = table.iter().filter(|description| !description.name.is_null());
        named.map(|description| (code(&raw const description.code), description.code.into())).collect()
    });
    known.get(&number).copied().unwrap_or(RDKafkaErrorCode::Unknown)
}

/// The number of an error code, read without the assumption that the enum has it.
#[inline]
pub(super) fn code(error: *const rd::rd_kafka_resp_err_t) -> i32 {
    // SAFETY: the enum is a C enum of 32 bits; callers pass a pointer to a live field.
    unsafe { error.cast::<i32>().read() }
}

/// Functions of librdkafka that return an error code, called so that they return its number.
macro_rules! return_numbers {
    ($($name:ident($($argument:ident: $type:ty),* $(,)?);)*) => { $(
        /// # Safety
        /// As for the function of librdkafka with this name.
        #[inline]
        #[allow(clippy::too_many_arguments, reason = "the library decides")]
        pub(super) unsafe fn $name($($argument: $type),*) -> i32 {
            type Typed = unsafe extern "C" fn($($type),*) -> rd::rd_kafka_resp_err_t;
            type Number = unsafe extern "C" fn($($type),*) -> i32;
            // SAFETY: the enum is represented as an i32, so both types have one calling convention.
            let call = unsafe { std::mem::transmute::<Typed, Number>(rd::$name) };
            // SAFETY: the caller's promise.
            unsafe { call($($argument),*) }
        }
    )* };
}

type CommitCallback = unsafe extern "C" fn(
    *mut rd::rd_kafka_t,
    rd::rd_kafka_resp_err_t,
    *mut rd::rd_kafka_topic_partition_list_t,
    *mut c_void,
);

return_numbers! {
    rd_kafka_commit_queue(
        client: *mut rd::rd_kafka_t,
        offsets: *const rd::rd_kafka_topic_partition_list_t,
        queue: *mut rd::rd_kafka_queue_t,
        callback: Option<CommitCallback>,
        opaque: *mut c_void,
    );
    rd_kafka_error_code(error: *const rd::rd_kafka_error_t);
    rd_kafka_event_error(event: *mut rd::rd_kafka_event_t);
    rd_kafka_get_watermark_offsets(
        client: *mut rd::rd_kafka_t,
        topic: *const c_char,
        partition: i32,
        low: *mut i64,
        high: *mut i64,
    );
    rd_kafka_header_get_all(
        headers: *const rd::rd_kafka_headers_t,
        index: usize,
        name: *mut *const c_char,
        value: *mut *const c_void,
        size: *mut usize,
    );
    rd_kafka_oauthbearer_set_token(
        client: *mut rd::rd_kafka_t,
        value: *const c_char,
        lifetime_millis: i64,
        principal: *const c_char,
        extensions: *mut *const c_char,
        extension_size: usize,
        reason: *mut c_char,
        reason_size: usize,
    );
    rd_kafka_message_detach_headers(
        message: *mut rd::rd_kafka_message_t,
        headers: *mut *mut rd::rd_kafka_headers_t,
    );
    rd_kafka_message_headers(
        message: *const rd::rd_kafka_message_t,
        headers: *mut *mut rd::rd_kafka_headers_t,
    );
}

/// # Safety
/// `pointer` is null, or `len` bytes are readable there for as long as `'m`.
#[inline]
pub(super) unsafe fn bytes<'m>(pointer: *mut c_void, len: usize) -> Option<&'m [u8]> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { slice::from_raw_parts(pointer.cast::<u8>(), len) })
}

/// # Safety
/// `pointer` is null or a C string.
pub(super) unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_newer_brokers_are_unknown_and_the_others_are_themselves() {
        assert_eq!(known(0), RDKafkaErrorCode::NoError);
        assert_eq!(known(22), RDKafkaErrorCode::IllegalGeneration);
        assert_eq!(known(-140), RDKafkaErrorCode::AutoOffsetReset);
        assert_eq!(known(9999), RDKafkaErrorCode::Unknown);
    }
}
