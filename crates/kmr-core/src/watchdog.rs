//! The watchdog's settings: when kmr warns of a partition without progress, and when it restarts
//! it.

use std::time::Duration;

/// Reports a partition that makes no progress, restarts it, then the Kafka client, then ends the
/// consumer: see [`ConsumerBuilder::watchdog`](crate::ConsumerBuilder::watchdog).
///
/// Each recovery step delivers uncommitted records again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Watchdog {
    /// Age of a partition's oldest unfinished record at which kmr logs a warning, and
    /// [`Health`](crate::Health) reports the partition as late. Default 60 s, on top of the
    /// `max_age` of the reducers' batches. The warning names what the record waits for. kmr repeats
    /// it when the age has doubled.
    ///
    /// A partition that is not read although its log holds records is treated in the same way,
    /// whatever the reason. kmr compares positions with the ends of logs every 30 s, or twice in
    /// this time if it is shorter. Not while the partition is paused, is being moved, or its broker
    /// is unavailable, nor while the consumer takes all that it can: the fetch queue has to be
    /// empty now and then.
    pub warn_after: Duration,
    /// Age at which kmr recovers such a partition. Default 15 min, on top of the `max_age` of the
    /// reducers' batches, `None`: never. At least the drain timeout.
    ///
    /// First the partition is drained as far as possible and restarted from its committed offset.
    /// After the same time the consumer gets a new Kafka client. After the same time again it ends
    /// with [`Error::Stuck`](crate::Error::Stuck). It ends at once if the mapper does not return,
    /// because a task cannot be removed from user code.
    ///
    /// Work that is being retried is never restarted: the retry policies of deliveries and map
    /// stages decide when to give up. So the age only has to be longer than any healthy work
    /// without a retry takes: the mapping of one record, and a drain.
    pub restart_after: Option<Duration>,
    /// Whether the process exits with code 70 if it still runs 10 s after the consumer ended with
    /// [`Error::Stuck`](crate::Error::Stuck). Default `false`: kmr only logs it.
    ///
    /// The process also exits, at once, if Tokio's runtime makes no progress for `restart_after`,
    /// because mappers that do not return hold all of its worker threads. A mapper that does not
    /// return keeps its thread, and Tokio's runtime waits for that thread when it is dropped.
    /// Without this setting the process may stay forever, as a member of no group. For programs
    /// that only run a consumer.
    pub exit_when_stuck: bool,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self {
            warn_after: Duration::from_secs(60),
            restart_after: Some(Duration::from_secs(900)),
            exit_when_stuck: false,
        }
    }
}

impl Watchdog {
    /// Sets [`warn_after`](Self::warn_after).
    pub fn with_warn_after(mut self, age: Duration) -> Self {
        self.warn_after = age;
        self
    }

    /// Sets [`restart_after`](Self::restart_after).
    pub fn with_restart_after(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.restart_after = age.into();
        self
    }

    /// Sets [`exit_when_stuck`](Self::exit_when_stuck).
    pub fn with_exit_when_stuck(mut self, exits: bool) -> Self {
        self.exit_when_stuck = exits;
        self
    }
}
