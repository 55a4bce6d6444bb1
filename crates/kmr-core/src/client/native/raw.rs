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

#[inline]
pub(super) fn code_of(error: rd::rd_kafka_resp_err_t) -> i32 {
    error as i32
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
