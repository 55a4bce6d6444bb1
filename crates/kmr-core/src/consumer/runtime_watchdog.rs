//! Watches, from a thread of its own, whether Tokio's runtime makes progress.
//!
//! Mappers that never return may hold all worker threads of the runtime. Then nothing that runs in
//! it can report that, the watchdog included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::error::BoxError;
use crate::telemetry;

/// The exit code of a process that is stuck: `EX_SOFTWARE` of sysexits.h.
pub(super) const EXIT_CODE: i32 = 70;
/// How often the runtime counts up, and how often the thread checks the count.
const TICK: Duration = Duration::from_secs(1);

/// Ends the watch when the consumer has ended.
#[must_use]
pub(super) struct RuntimeWatchdog {
    counting: AbortHandle,
    /// The thread ends when this is dropped.
    _count: Arc<AtomicU64>,
}

impl Drop for RuntimeWatchdog {
    fn drop(&mut self) {
        self.counting.abort();
    }
}

/// Watches the runtime until the value is dropped. Reports a runtime without progress for `limit`,
/// and ends the process if `exits`.
pub(super) fn watch(limit: Duration, exits: bool) -> RuntimeWatchdog {
    let count = Arc::<AtomicU64>::default();
    let (counted, seen) = (count.clone(), Arc::downgrade(&count));
    let counting = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(TICK).await;
        }
    });
    let check = move || {
        let (mut last, mut since, mut reported) = (0, Instant::now(), false);
        loop {
            thread::sleep(TICK);
            let Some(now) = seen.upgrade().map(|count| count.load(Ordering::Relaxed)) else { return };
            if now != last {
                (last, since, reported) = (now, Instant::now(), false);
            } else if since.elapsed() >= limit {
                if !std::mem::replace(&mut reported, true) {
                    telemetry::runtime_stuck(since.elapsed(), exits);
                }
                if exits {
                    std::process::exit(EXIT_CODE);
                }
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("kmr-watchdog".to_owned()).spawn(check) {
        telemetry::secondary_failure(&(Box::new(error) as BoxError));
    }
    RuntimeWatchdog { counting: counting.abort_handle(), _count: count }
}
