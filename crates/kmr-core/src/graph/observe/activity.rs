//! What a partition's map task is doing and since when. The task writes it, the health check reads
//! it.
//!
//! Invariants:
//! 1. It is written before each call of user code and before each wait, so a reader sees the reason
//!    why a partition is held up.
//! 2. Records that are mapped in place are not written one by one. The offset is the first of a
//!    few.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::stage::Stage;

/// What a partition's map task is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ActivityState {
    /// It waits for records.
    Idle,
    /// It is in the map stages, with the record at the offset or one of the next few.
    Mapping,
    /// It waits for an asynchronous map stage.
    Awaiting,
    /// It waits before it retries a record.
    Retrying { attempt: u32, error: Arc<str> },
    /// It waits until a stage accepts mapped rows.
    HandingOver { to: Stage },
}

impl ActivityState {
    /// Whether the mapper, user code, decides how long this takes.
    pub(crate) fn is_in_mapper(&self) -> bool {
        matches!(self, Self::Mapping | Self::Awaiting | Self::Retrying { .. })
    }
}

/// What a partition's map task was doing at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ActivityReading {
    pub(crate) state: ActivityState,
    /// The record that it works on. `None` while it waits for records.
    pub(crate) offset: Option<i64>,
    /// Since when it has been doing this with this record.
    pub(crate) since: Instant,
}

impl fmt::Display for ActivityReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = self.offset.unwrap_or(-1);
        match &self.state {
            ActivityState::Idle => f.write_str("waiting for records"),
            ActivityState::Mapping => write!(f, "mapping offset {offset}"),
            ActivityState::Awaiting => write!(f, "waiting for the async map stage at offset {offset}"),
            ActivityState::Retrying { attempt, error } => {
                write!(f, "waiting to retry offset {offset} after attempt {attempt}: {error}")
            }
            ActivityState::HandingOver { to } => {
                write!(f, "waiting for {to} to accept rows up to offset {offset}")
            }
        }
    }
}

/// The activity of one partition's map task. Writing that it maps is nearly free, and writing that
/// it waits takes a lock.
#[derive(Debug)]
pub(crate) struct Activity {
    /// What it waits for. `None` while it maps.
    waits: Mutex<Option<ActivityReading>>,
    /// Whether it maps, known without the lock.
    maps: AtomicBool,
    /// The record that is mapped.
    offset: AtomicI64,
    /// Since when, in nanoseconds after `created`.
    since: AtomicU64,
    created: Instant,
}

impl Default for Activity {
    fn default() -> Self {
        let created = Instant::now();
        let idle = ActivityReading { state: ActivityState::Idle, offset: None, since: created };
        Self {
            waits: Mutex::new(Some(idle)),
            maps: AtomicBool::new(false),
            offset: AtomicI64::new(0),
            since: AtomicU64::new(0),
            created,
        }
    }
}

impl Activity {
    /// What the task is doing now.
    pub(crate) fn read(&self) -> ActivityReading {
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reading) = &*waits {
            return reading.clone();
        }
        // The two values may be of two writes, a few records apart.
        let offset = self.offset.load(Ordering::Relaxed);
        let since = self.created + Duration::from_nanos(self.since.load(Ordering::Relaxed));
        ActivityReading { state: ActivityState::Mapping, offset: Some(offset), since }
    }

    /// The task has nothing to do.
    pub(crate) fn idle(&self) {
        self.wait(ActivityState::Idle, None);
    }

    /// The task starts to map the records from `offset` on.
    #[inline]
    pub(crate) fn mapping(&self, offset: i64, now: Instant) {
        let since = u64::try_from((now - self.created).as_nanos()).unwrap_or(u64::MAX);
        self.offset.store(offset, Ordering::Relaxed);
        self.since.store(since, Ordering::Relaxed);
        if !self.maps.swap(true, Ordering::Relaxed) {
            *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// The task starts to wait with the record at `offset`. The same call again changes nothing.
    pub(crate) fn waiting(&self, state: ActivityState, offset: i64) {
        self.wait(state, Some(offset));
    }

    fn wait(&self, state: ActivityState, offset: Option<i64>) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if waits.as_ref().is_none_or(|reading| reading.offset != offset || reading.state != state) {
            *waits = Some(ActivityReading { state, offset, since: Instant::now() });
        }
        self.maps.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_the_first_of_equal_writes() {
        let activity = Activity::default();
        activity.mapping(7, Instant::now());
        let start = Instant::now();
        activity.waiting(ActivityState::Awaiting, 7);
        advance(Duration::from_secs(3)).await;
        activity.waiting(ActivityState::Awaiting, 7);
        assert_eq!(
            activity.read(),
            ActivityReading { state: ActivityState::Awaiting, offset: Some(7), since: start }
        );
        activity.waiting(ActivityState::Awaiting, 9);
        assert_eq!(activity.read().since, Instant::now());
        activity.mapping(10, Instant::now());
        activity.mapping(26, Instant::now());
        assert_eq!(
            (activity.read().to_string().as_str(), activity.read().since),
            ("mapping offset 26", Instant::now())
        );
        activity.idle();
        assert_eq!(activity.read().offset, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_text_names_what_the_task_waits_for() {
        let activity = Activity::default();
        assert_eq!(activity.read().to_string(), "waiting for records");
        activity.waiting(ActivityState::Retrying { attempt: 3, error: "HTTP 503".into() }, 7);
        assert_eq!(activity.read().to_string(), "waiting to retry offset 7 after attempt 3: HTTP 503");
        activity.waiting(ActivityState::HandingOver { to: Stage::new("reduce", 1) }, 8);
        assert_eq!(activity.read().to_string(), "waiting for reduce 1 to accept rows up to offset 8");
    }
}
