//! Sees from outside whether Tokio's runtime gets on: mappers that never return may hold all of its worker threads, and then nothing
//! that runs in it, the watchdog included, can say so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::EXIT_CODE;
use crate::error::BoxError;
use crate::telemetry;

/// How often the runtime shows that it is alive, and how often that is looked at.
const TICK: Duration = Duration::from_secs(1);

/// Ends the watch when the consumer has ended.
#[must_use]
pub(super) struct Alive {
    beating: AbortHandle,
    _beat: Arc<AtomicU64>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

/// Watches the runtime until the value is dropped. One that does not get on for `limit` is reported, and the process ends if `exits`.
pub(super) fn watch(limit: Duration, exits: bool) -> Alive {
    let beat = Arc::<AtomicU64>::default();
    let (shown, seen) = (beat.clone(), Arc::downgrade(&beat));
    let beating = tokio::spawn(async move {
        loop {
            shown.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(TICK).await;
        }
    });
    let look = move || {
        let (mut last, mut since, mut reported) = (0, Instant::now(), false);
        loop {
            thread::sleep(TICK);
            let Some(now) = seen.upgrade().map(|beat| beat.load(Ordering::Relaxed)) else { return };
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
    if let Err(error) = thread::Builder::new().name("kmr-alive".to_owned()).spawn(look) {
        telemetry::secondary_failure(&(Box::new(error) as BoxError));
    }
    Alive { beating: beating.abort_handle(), _beat: beat }
}
