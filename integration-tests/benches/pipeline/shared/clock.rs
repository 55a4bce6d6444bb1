//! Two clocks that the standard library does not have: the processor time of this process, which `/proc` counts in 10 ms, and a cheap
//! one of the time of day.
#![allow(unsafe_code, reason = "one call into libc")]

use std::time::Duration;

/// User and system time of all threads so far, those that have ended included.
pub(crate) fn process_cpu() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Seconds since 1970, as of the kernel's last tick, some milliseconds ago at most. The precise clock takes 40 ns, which for each record
/// is more than the rest of W1's map, and seconds are all that the column has.
pub(crate) fn seconds() -> u64 {
    read(libc::CLOCK_REALTIME_COARSE).as_secs()
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both clocks are known to every Linux, and `time` is writable for the length of the call.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if failed != 0 {
        return Duration::ZERO;
    }
    // The kernel keeps both parts positive, and the second below a billion.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
