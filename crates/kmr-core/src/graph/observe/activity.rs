//! What a partition's task is doing, and since when: the task writes it, the watchdog reads it.
//!
//! Invariants:
//! 1. It is written before user code is called and before the task waits, so what holds a partition up is what is read.
//! 2. Records that are mapped in place are not written one by one: the offset is that of the first of a few.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::stage::Stage;

/// What a partition's task is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PulseState {
    /// It waits for records.
    Idle,
    /// It is in the map stages, with the record at the offset or one of the few behind it.
    Mapping,
    /// It waits for an asynchronous map stage.
    Awaiting,
    /// It waits before it maps a record once more, whose last attempt failed.
    Retrying { attempt: u32, error: Arc<str> },
    /// It waits until a stage takes what was mapped.
    HandingOver { to: Stage },
}

impl PulseState {
    /// Whether the mapper, user code, decides how long this takes.
    pub(crate) fn is_in_mapper(&self) -> bool {
        matches!(self, Self::Mapping | Self::Awaiting | Self::Retrying { .. })
    }
}

/// What a partition's task was doing when it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PulseReading {
    pub(crate) state: PulseState,
    /// The record that it is about; `None` while it waits for records.
    pub(crate) offset: Option<i64>,
    /// Since when it has been doing this, with this record.
    pub(crate) since: Instant,
}

impl fmt::Display for PulseReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = self.offset.unwrap_or(-1);
        match &self.state {
            PulseState::Idle => f.write_str("waiting for records"),
            PulseState::Mapping => write!(f, "mapping offset {offset}"),
            PulseState::Awaiting => write!(f, "waiting for the async map stage at offset {offset}"),
            PulseState::Retrying { attempt, error } => {
                write!(f, "waiting to map offset {offset} again after attempt {attempt}: {error}")
            }
            PulseState::HandingOver { to } => {
                write!(f, "waiting for {to} to take what is mapped up to offset {offset}")
            }
        }
    }
}

/// The pulse of one partition's task. To say that records are mapped costs next to nothing; to say that it waits, a lock.
#[derive(Debug)]
pub(crate) struct Activity {
    /// What it waits for; `None` while it maps.
    waits: Mutex<Option<PulseReading>>,
    /// Whether it maps, known without the lock.
    maps: AtomicBool,
    /// The record that is mapped.
    offset: AtomicI64,
    /// Since when, in nanoseconds behind `began`.
    since: AtomicU64,
    began: Instant,
}

impl Default for Activity {
    fn default() -> Self {
        let began = Instant::now();
        let idle = PulseReading { state: PulseState::Idle, offset: None, since: began };
        Self {
            waits: Mutex::new(Some(idle)),
            maps: AtomicBool::new(false),
            offset: AtomicI64::new(0),
            since: AtomicU64::new(0),
            began,
        }
    }
}

impl Activity {
    /// What the task is doing.
    pub(crate) fn read(&self) -> PulseReading {
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reading) = &*waits {
            return reading.clone();
        }
        // The two may be of two neighbouring writes, a few records apart.
        let offset = self.offset.load(Ordering::Relaxed);
        let since = self.began + Duration::from_nanos(self.since.load(Ordering::Relaxed));
        PulseReading { state: PulseState::Mapping, offset: Some(offset), since }
    }

    /// The task has nothing to do.
    pub(crate) fn idle(&self) {
        self.wait(PulseState::Idle, None);
    }

    /// The task is about to map the records from `offset` on.
    #[inline]
    pub(crate) fn mapping(&self, offset: i64, now: Instant) {
        let since = u64::try_from((now - self.began).as_nanos()).unwrap_or(u64::MAX);
        self.offset.store(offset, Ordering::Relaxed);
        self.since.store(since, Ordering::Relaxed);
        if !self.maps.swap(true, Ordering::Relaxed) {
            *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// The task is about to wait, with the record at `offset`. Saying so again changes nothing.
    pub(crate) fn waiting(&self, state: PulseState, offset: i64) {
        self.wait(state, Some(offset));
    }

    fn wait(&self, state: PulseState, offset: Option<i64>) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if waits.as_ref().is_none_or(|reading| reading.offset != offset || reading.state != state) {
            *waits = Some(PulseReading { state, offset, since: Instant::now() });
        }
        self.maps.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_the_first_time_that_it_was_said() {
        let pulse = Activity::default();
        pulse.mapping(7, Instant::now());
        let start = Instant::now();
        pulse.waiting(PulseState::Awaiting, 7);
        advance(Duration::from_secs(3)).await;
        pulse.waiting(PulseState::Awaiting, 7);
        assert_eq!(pulse.read(), PulseReading { state: PulseState::Awaiting, offset: Some(7), since: start });
        pulse.waiting(PulseState::Awaiting, 9);
        assert_eq!(pulse.read().since, Instant::now());
        pulse.mapping(10, Instant::now());
        pulse.mapping(26, Instant::now());
        assert_eq!(
            (pulse.read().to_string().as_str(), pulse.read().since),
            ("mapping offset 26", Instant::now())
        );
        pulse.idle();
        assert_eq!(pulse.read().offset, None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_what_is_waited_for() {
        let pulse = Activity::default();
        assert_eq!(pulse.read().to_string(), "waiting for records");
        pulse.waiting(PulseState::Retrying { attempt: 3, error: "HTTP 503".into() }, 7);
        assert_eq!(pulse.read().to_string(), "waiting to map offset 7 again after attempt 3: HTTP 503");
        pulse.waiting(PulseState::HandingOver { to: Stage::new("reduce", 1) }, 8);
        assert_eq!(pulse.read().to_string(), "waiting for reduce 1 to take what is mapped up to offset 8");
    }
}
