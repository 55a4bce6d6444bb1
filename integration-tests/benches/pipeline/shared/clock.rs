//! The processor time of this process. The standard library has no clock for it, and `/proc` counts in 10 ms.
#![allow(unsafe_code, reason = "one call into libc")]

use std::time::Duration;

/// User and system time of all threads so far, those that have ended included.
pub(crate) fn process_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock is known to every Linux, and `time` is writable for the length of the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    if failed != 0 {
        return Duration::ZERO;
    }
    // The kernel keeps both parts positive, and the second below a billion.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
