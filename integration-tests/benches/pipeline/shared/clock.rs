//! Reads two clocks that the standard library lacks: this process's processor time and a coarse
//! time of day.
//!
//! `/proc` has the processor time only in units of 10 ms.
#![allow(unsafe_code, reason = "one call into libc")]

use std::time::Duration;

/// User and system time of all threads so far, with those that have ended.
pub(crate) fn process_cpu() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Seconds since 1970 as of the kernel's last tick, at most some milliseconds ago. The precise
/// clock takes 40 ns per record, more than the rest of W1's map, and the column has only seconds.
pub(crate) fn seconds() -> u64 {
    read(libc::CLOCK_REALTIME_COARSE).as_secs()
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: every Linux has both clocks, and `time` is writable during the call.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if failed != 0 {
        return Duration::ZERO;
    }
    // Both parts are positive, and the second is below a billion.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
