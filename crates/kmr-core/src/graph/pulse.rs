//! What a partition's task is doing, and since when: the task writes it, the watchdog reads it.
//!
//! Invariants:
//! 1. It is written before user code is called and before the task waits, so what holds a partition up is what is read.
//! 2. Records that are mapped in place are not written one by one: the offset is that of the first of a few.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

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
    #[allow(dead_code, reason = "retries come next")]
    Retrying { attempt: u32, error: Arc<str> },
    /// It waits until a stage takes what was mapped.
    HandingOver { to: Stage },
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
                write!(f, "waiting for {to} to take what is mapped before offset {offset}")
            }
        }
    }
}

/// The pulse of one partition's task. A write is a lock that nobody else holds for long: for slices and waits, not for records.
#[derive(Debug)]
pub(crate) struct Pulse(Mutex<PulseReading>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Mutex::new(PulseReading { state: PulseState::Idle, offset: None, since: Instant::now() }))
    }
}

impl Pulse {
    /// What the task is doing.
    pub(crate) fn read(&self) -> PulseReading {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The task has nothing to do.
    pub(crate) fn idle(&self) {
        self.write(PulseState::Idle, None, Instant::now());
    }

    /// The task is about to map the records from `offset` on.
    pub(crate) fn mapping(&self, offset: i64, now: Instant) {
        self.write(PulseState::Mapping, Some(offset), now);
    }

    /// The task is about to wait, with the record at `offset`. Saying so again changes nothing.
    pub(crate) fn waiting(&self, state: PulseState, offset: i64) {
        self.write(state, Some(offset), Instant::now());
    }

    fn write(&self, state: PulseState, offset: Option<i64>, now: Instant) {
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reading.offset != offset || reading.state != state {
            *reading = PulseReading { state, offset, since: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_the_first_time_that_it_was_said() {
        let pulse = Pulse::default();
        pulse.mapping(7, Instant::now());
        let start = Instant::now();
        pulse.waiting(PulseState::Awaiting, 7);
        advance(Duration::from_secs(3)).await;
        pulse.waiting(PulseState::Awaiting, 7);
        assert_eq!(pulse.read(), PulseReading { state: PulseState::Awaiting, offset: Some(7), since: start });
        pulse.waiting(PulseState::Awaiting, 9);
        assert_eq!(pulse.read().since, Instant::now());
        pulse.idle();
        assert_eq!(pulse.read().offset, None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_what_is_waited_for() {
        let pulse = Pulse::default();
        assert_eq!(pulse.read().to_string(), "waiting for records");
        pulse.waiting(PulseState::Retrying { attempt: 3, error: "HTTP 503".into() }, 7);
        assert_eq!(pulse.read().to_string(), "waiting to map offset 7 again after attempt 3: HTTP 503");
        pulse.waiting(PulseState::HandingOver { to: Stage::new("reduce", 1) }, 8);
        assert_eq!(pulse.read().to_string(), "waiting for reduce 1 to take what is mapped before offset 8");
    }
}
