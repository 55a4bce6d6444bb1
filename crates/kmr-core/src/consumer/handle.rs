//! The handle that watches and directs a running consumer.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::Error;
use crate::graph::control::{ControlSender, DesiredPauses, StopRequest};
use crate::graph::memory::budget::Budget;
use crate::health::Health;
#[cfg(feature = "metrics")]
use crate::metrics::{Live, MetricsFormat, Totals};
use crate::record::TopicPartition;
use crate::stats::{Counters, Stats};

/// Watches and directs a consumer from elsewhere. Clones are handles of the same consumer.
#[derive(Clone, Debug)]
pub struct ConsumerHandle {
    pub(super) controls: ControlSender,
    pub(super) counters: Arc<Counters>,
    pub(super) budget: Arc<Budget>,
    #[cfg(feature = "metrics")]
    pub(super) group: Arc<str>,
    #[cfg(feature = "metrics")]
    pub(super) instance: Option<Arc<str>>,
    #[cfg(feature = "metrics")]
    pub(super) built: std::time::Instant,
}

impl ConsumerHandle {
    /// Ends the consumer in order: drain, flush, commit, leave. Repeating it changes nothing.
    ///
    /// All stop requests together follow one rule: the first one of any source starts the ordered
    /// end, and only two things force the end after or instead of it.
    ///
    /// * [`stop_now`](Self::stop_now).
    /// * A second signal. SIGINT and SIGTERM count each other, but not `stop()`. So `stop()` and
    ///   one SIGTERM, in any order, still end the consumer in order. The same signal within a
    ///   second counts once, because some programs signal a process and its group.
    ///
    /// A [`shutdown_signal`](crate::ConsumerBuilder::shutdown_signal) never forces.
    pub fn stop(&self) {
        // The consumer may have ended already.
        let _ = self.controls.stop.send(StopRequest::in_order("the handle"));
    }

    /// Ends the consumer at once, with [`Error::Unfinished`], also during an ordered end. What is
    /// unfinished stays uncommitted, and the next consumer reads it again.
    pub fn stop_now(&self) {
        let _ = self.controls.stop.send(StopRequest::forced("the handle"));
    }

    /// Pauses these partitions until [`resume`](Self::resume). Repeating it changes nothing.
    /// Fetched records are still processed and committed.
    ///
    /// Partitions that are not assigned may be named: they are paused when they are assigned. A
    /// pause survives rebalances and new clients, and ends with this consumer.
    ///
    /// Does not wait: the Kafka client pauses a moment later, for a newly assigned partition as
    /// soon as its rebalance is answered.
    pub fn pause(&self, partitions: impl IntoIterator<Item = TopicPartition>) {
        self.controls.pause(|desired| desired.partitions.extend(partitions));
    }

    /// Reads these partitions again. Partitions that are not paused may be named. Does not end
    /// [`pause_all`](Self::pause_all).
    pub fn resume(&self, partitions: impl IntoIterator<Item = TopicPartition>) {
        self.controls.pause(|desired| {
            for partition in partitions {
                desired.partitions.remove(&partition);
            }
        });
    }

    /// Pauses all partitions, those assigned later included, until
    /// [`resume_all`](Self::resume_all).
    pub fn pause_all(&self) {
        self.controls.pause(|desired| desired.all = true);
    }

    /// Reads all partitions again, whether they were paused by name or all together.
    pub fn resume_all(&self) {
        self.controls.pause(|desired| *desired = DesiredPauses::default());
    }

    /// The partitions that [`pause`](Self::pause) named, without those of
    /// [`pause_all`](Self::pause_all).
    pub fn paused(&self) -> BTreeSet<TopicPartition> {
        self.controls.desired_pauses().partitions
    }

    /// Continues a partition at `offset`, backwards or forwards, and commits the offset. No other
    /// partition stops.
    ///
    /// First the partition is drained, within the drain timeout, and committed. Then reading starts
    /// at `offset`. Seeking backwards delivers records again, seeking forwards skips some.
    ///
    /// # Cancel safety
    /// Dropping the future does not cancel the seek.
    ///
    /// # Errors
    /// [`Error::NotAssigned`]: the partition is not assigned to this consumer, or a rebalance, a
    /// new client or the end came first. Reading then continues at the committed offset.
    /// [`Error::Config`]: the offset is negative. [`Error::OffsetOutOfRange`]: it is not in the log
    /// and not its end. [`Error::Client`]: the bounds of the log could not be read. In both cases
    /// the partition continues at its committed offset.
    pub async fn seek(&self, partition: TopicPartition, offset: i64) -> Result<(), Error> {
        if offset < 0 {
            return Err(Error::Config(format!("{partition}: seek to {offset}; offsets start at 0")));
        }
        self.controls.seek(partition, offset).await
    }

    /// The consumer's health: what each partition's oldest unfinished record waits for, and how
    /// long. At most a second old.
    pub fn health(&self) -> Health {
        self.controls.board.health()
    }

    /// Whether every partition that the consumer owns has been read to its end since it was
    /// assigned. Records that have come since then do not change that; see
    /// [`Stats::records`](crate::Stats::records).
    ///
    /// `false` before the first assignment, while a rebalance is not answered, and as long as the
    /// first fetch of a partition has no response: for example while it is paused, or its broker
    /// cannot be reached. A consumer that was assigned no partition has caught up. One that has
    /// lost all its partitions has caught up when it was assigned nothing for 60 s.
    ///
    /// Always `false` for a consumer without
    /// [`report_ends`](crate::ConsumerBuilder::report_ends),
    /// [`until`](crate::ConsumerBuilder::until) or
    /// [`exactly_once`](crate::ConsumerBuilder::exactly_once), unless it owns no partition.
    pub fn has_caught_up(&self) -> bool {
        self.controls.board.has_caught_up()
    }

    /// The consumer's metrics, as the text of one scrape: docs/metrics.md has a table of them.
    /// Empty after [`record_metrics(false)`](crate::ConsumerBuilder::record_metrics).
    ///
    /// Every scrape reads the running consumer. So the series of a partition that was revoked are
    /// gone as soon as its rebalance is answered, and lag is that of this moment. It waits for the
    /// task that commits, a second at most. After that, it returns the last known lag.
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[cfg(feature = "metrics")]
    pub async fn metrics(&self, format: MetricsFormat) -> String {
        self.counters.metrics.scrape(format, || self.live()).await
    }

    #[cfg(feature = "metrics")]
    fn live(&self) -> Live {
        let Stats { records, bytes, rows, commits, rebalances, reconnects, resets, bytes_held, .. } =
            self.stats();
        Live {
            group: self.group.clone(),
            totals: Totals {
                records,
                record_bytes: bytes,
                rows,
                commits,
                rebalances,
                resets,
                replacements: reconnects,
            },
            health: self.health(),
            memory_budget: self.budget.capacity(),
            memory_used: bytes_held,
            sink_fails: self.controls.board.repeats_deliveries(),
        }
    }

    /// The consumer's counters.
    pub fn stats(&self) -> Stats {
        self.counters.snapshot(self.budget.held())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::graph::control::controls;
    use crate::signals::{Signals, follow};

    /// Whether each of the stop requests that `send` makes forces the end.
    /// Signals come two seconds apart.
    fn forces(send: impl FnOnce(&ConsumerHandle, &mut dyn FnMut())) -> Vec<bool> {
        let (sender, mut controls) = controls();
        let stop = sender.stop.clone();
        let handle = ConsumerHandle {
            controls: sender,
            counters: Arc::default(),
            budget: Budget::new(1 << 20),
            #[cfg(feature = "metrics")]
            group: "g".into(),
            #[cfg(feature = "metrics")]
            instance: None,
            #[cfg(feature = "metrics")]
            built: Instant::now(),
        };
        let mut signals = Signals::default();
        let mut now = Instant::now();
        send(&handle, &mut || {
            now += Duration::from_secs(2);
            stop.send(signals.request("SIGTERM", now).unwrap()).unwrap();
        });
        std::iter::from_fn(|| controls.stops.try_recv().ok()).map(|stop| stop.forces).collect()
    }

    #[test]
    fn stop_of_a_handle_never_forces() {
        assert_eq!(forces(|handle, _| (0..3).for_each(|_| handle.stop())), [false; 3]);
    }

    #[test]
    fn stop_now_forces_alone_and_after_a_stop() {
        assert_eq!(forces(|handle, _| handle.stop_now()), [true]);
        let both = forces(|handle, _| {
            handle.stop();
            handle.stop_now();
        });
        assert_eq!(both, [false, true]);
    }

    #[test]
    fn second_signal_forces() {
        let signals = forces(|_, signal| (0..3).for_each(|_| signal()));
        assert_eq!(signals, [false, true, true]);
    }

    #[test]
    fn same_signal_within_a_second_counts_once_and_another_signal_does_not() {
        let start = Instant::now();
        let mut signals = Signals::default();
        let mut forces = |signal, millis| {
            let request = signals.request(signal, start + Duration::from_millis(millis));
            request.map(|request| request.forces)
        };
        assert_eq!(forces("SIGINT", 0), Some(false));
        assert_eq!((forces("SIGINT", 0), forces("SIGINT", 999)), (None, None));
        assert_eq!(forces("SIGINT", 1_000), Some(true));
        let mut signals = Signals::default();
        let mut forces = |signal| signals.request(signal, start).map(|request| request.forces);
        assert_eq!((forces("SIGINT"), forces("SIGTERM")), (Some(false), Some(true)));
    }

    #[test]
    fn first_signal_after_a_stop_does_not_force_and_the_second_does() {
        let requests = forces(|handle, signal| {
            handle.stop();
            signal();
            signal();
        });
        assert_eq!(requests, [false, false, true]);
    }

    #[test]
    fn stop_after_a_signal_does_not_force() {
        let requests = forces(|handle, signal| {
            signal();
            handle.stop();
        });
        assert_eq!(requests, [false, false]);
    }

    #[tokio::test]
    async fn shutdown_signal_after_a_stop_does_not_force() {
        let (sender, mut controls) = controls();
        sender.stop.send(StopRequest::in_order("the handle")).unwrap();
        let _following = follow(std::future::ready(()), sender.stop.clone());
        for source in ["the handle", "the shutdown signal"] {
            let stop = controls.stops.recv().await.unwrap();
            assert_eq!((stop.source, stop.forces), (source, false));
        }
    }
}
