//! Matches topics with a pattern, as librdkafka does for a subscription.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::ptr;

/// Whether `pattern`, a POSIX extended regular expression, matches somewhere in `topic`. One that
/// is invalid matches nothing; librdkafka reports it.
pub(in crate::client) fn matches(pattern: &str, topic: &str) -> bool {
    let (Ok(pattern), Ok(topic)) = (CString::new(pattern), CString::new(topic)) else { return false };
    let mut compiled = MaybeUninit::<libc::regex_t>::uninit();
    let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
    // SAFETY: both pointers are valid for the call, and the pattern ends with a zero byte.
    let error = unsafe { libc::regcomp(compiled.as_mut_ptr(), pattern.as_ptr(), flags) };
    if error != 0 {
        return false;
    }
    // SAFETY: `regcomp` succeeded, so `compiled` is initialised; the topic ends with a zero byte,
    // and no matches are written.
    let result = unsafe { libc::regexec(compiled.as_ptr(), topic.as_ptr(), 0, ptr::null_mut(), 0) };
    // SAFETY: `compiled` is initialised and not used again.
    unsafe { libc::regfree(compiled.as_mut_ptr()) };
    result == 0
}
