//! The recorder: what tasks call to record metrics.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::mpsc::WeakSender;
use tokio::time::Instant;

use super::channel::StageChannel;
use super::event_log::EventLog;
use super::families::Families;
use super::labels::{AttemptOutcome, FlushCause, Phase};
use super::partition::{PartitionMeter, PartitionState, Progress};
use super::series::{Counters, Seconds};
use super::stage::StageMetrics;
use crate::event::Event;
use crate::record::TopicPartition;
use crate::util::future::BoxFuture;

/// Records the metrics of one consumer. The default records nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(pub(super) Option<Arc<Families>>);

impl Recorder {
    /// A recorder of a consumer with metrics.
    pub(crate) fn recording() -> Self {
        Self(Some(Arc::new(Families::new())))
    }

    /// Adds the time until the timer is dropped to a phase.
    pub(crate) fn phase(&self, phase: Phase) -> PhaseTimer {
        PhaseTimer(self.0.as_ref().map(|on| (Instant::now(), on.phases[phase as usize].clone())))
    }

    /// Records what kmr measures of a reduce stage.
    pub(crate) fn stage(&self, stage: &str) -> StageRecorder {
        StageRecorder(self.0.as_ref().map(|on| Arc::new(StageSeries::new(stage, on))))
    }

    /// Records what the reducer of a stage measures itself.
    pub(crate) fn of_reducer(&self, stage: &str) -> StageMetrics {
        StageMetrics::new(stage, self.0.clone())
    }

    /// Keeps an event for the status. `event` is called only if metrics are recorded.
    pub(crate) fn event(&self, event: impl FnOnce() -> Event) {
        if let Some(on) = &self.0 {
            on.events.add(event());
        }
    }

    /// Keeps events for the status. The iterator runs only if metrics are recorded.
    pub(crate) fn events(&self, events: impl Iterator<Item = Event>) {
        if let Some(on) = &self.0 {
            events.for_each(|event| on.events.add(event));
        }
    }

    /// A reduce stage starts, with this input channel. It keeps the channel not open.
    pub(crate) fn channel<T: Send + 'static>(
        &self,
        stage: &str,
        max_deliveries: usize,
        sender: WeakSender<T>,
    ) {
        let Some(on) = &self.0 else { return };
        let channel = StageChannel::new(stage, max_deliveries, sender);
        on.channels.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
    }

    /// The state of a new assignment. `unmapped`: bytes of its records that wait for their mapper.
    pub(crate) fn partition(
        &self,
        partition: &TopicPartition,
        assignment: u64,
        unmapped: impl Fn() -> usize + Send + Sync + 'static,
    ) -> PartitionMeter {
        PartitionMeter(self.0.as_ref().map(|on| {
            let state = PartitionState::new(partition.clone(), assignment, unmapped);
            let mut partitions = on.partitions.lock().unwrap_or_else(PoisonError::into_inner);
            partitions.retain(|known| known.strong_count() > 0);
            partitions.push(Arc::downgrade(&state));
            state
        }))
    }

    /// Sets how a scrape learns what is finished. It must keep no client and no task alive.
    pub(crate) fn set_reporter(
        &self,
        reporter: impl Fn() -> BoxFuture<'static, Vec<Progress>> + Send + Sync + 'static,
    ) {
        if let Some(on) = &self.0 {
            *on.reporter.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(reporter));
        }
    }

    /// Dead letters are sent to `reduce_err`. `failures`: for each, the stage that failed and the
    /// code of its error.
    pub(crate) fn dead_letters<'d>(&self, failures: impl Iterator<Item = (&'d str, Option<&'d str>)>) {
        let Some(on) = &self.0 else { return };
        for (stage, code) in failures {
            let labels = vec![("stage", stage.into()), ("code", code.unwrap_or_default().into())];
            on.dead_letters.get_or_create(&labels).inc();
        }
    }

    /// A commit has been answered after `took`. `outcomes`: one for each offset.
    pub(crate) fn commit(&self, took: Duration, outcomes: impl Iterator<Item = &'static str>) {
        let Some(on) = &self.0 else { return };
        on.phases[Phase::Commit as usize].inc_by(took.as_secs_f64());
        on.commits.observe(took.as_secs_f64());
        for outcome in outcomes {
            on.offset_commits.get_or_create(&vec![("outcome", outcome.into())]).inc();
        }
    }

    /// A rebalance was answered after `took`.
    pub(crate) fn rebalance(&self, change: &'static str, took: Duration) {
        let Some(on) = &self.0 else { return };
        on.rebalances.get_or_create(&vec![("change", change.into())]).observe(took.as_secs_f64());
    }

    /// The watchdog acts.
    pub(crate) fn watchdog(&self, action: &'static str) {
        let Some(on) = &self.0 else { return };
        on.watchdog.get_or_create(&vec![("action", action.into())]).inc();
    }

    /// The circuit breaker has tripped.
    pub(crate) fn breaker_tripped(&self) {
        if let Some(on) = &self.0 {
            on.breaker_tripped.store(true, Ordering::Relaxed);
        }
    }
}

/// Adds the time since its start to a phase when it is dropped.
#[derive(Debug)]
#[must_use = "it measures until it is dropped"]
pub(crate) struct PhaseTimer(Option<(Instant, Seconds)>);

impl Drop for PhaseTimer {
    fn drop(&mut self) {
        if let Some((started, seconds)) = &self.0 {
            seconds.inc_by(started.elapsed().as_secs_f64());
        }
    }
}

/// Records the metrics of one reduce stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct StageRecorder(Option<Arc<StageSeries>>);

#[derive(Debug)]
struct StageSeries {
    stage: Arc<str>,
    events: Arc<EventLog>,
    /// In the order of [`FlushCause::ALL`].
    batches: [Counter; FlushCause::ALL.len()],
    batch_rows: Histogram,
    in_flight: Gauge,
    deliveries: Histogram,
    deliver: Seconds,
    attempts: Counters,
    attempt_times: Histogram,
}

impl StageSeries {
    fn new(stage: &str, on: &Families) -> Self {
        let stage: Arc<str> = stage.into();
        let labels = vec![("stage", stage.clone())];
        let batches = |cause: FlushCause| {
            on.batches.get_or_create_owned(&vec![("stage", stage.clone()), ("cause", cause.name().into())])
        };
        Self {
            batches: FlushCause::ALL.map(batches),
            batch_rows: on.batch_rows.get_or_create_owned(&labels),
            in_flight: on.in_flight.get_or_create_owned(&labels),
            deliveries: on.deliveries.get_or_create_owned(&labels),
            deliver: on.phases[Phase::Deliver as usize].clone(),
            attempts: on.attempts.clone(),
            attempt_times: on.attempt_times.get_or_create_owned(&labels),
            events: on.events.clone(),
            stage,
        }
    }
}

impl StageRecorder {
    /// A batch was closed and will be delivered.
    pub(crate) fn batch(&self, cause: FlushCause, rows: usize) {
        let Some(on) = &self.0 else { return };
        on.batches[cause as usize].inc();
        on.batch_rows.observe(rows as f64);
    }

    /// A delivery is in progress until the timer is dropped.
    pub(crate) fn delivery(&self) -> DeliveryTimer {
        DeliveryTimer(self.0.as_ref().map(|on| {
            on.in_flight.inc();
            (Instant::now(), on.clone())
        }))
    }

    /// An attempt failed with this error, and another one follows.
    pub(crate) fn failed(&self, error: &str) {
        let Some(on) = &self.0 else { return };
        on.events.add(Event::error(format!("delivery failed: {error}")).in_stage(&on.stage));
    }

    /// An attempt has ended. `code`: the code of its error.
    pub(crate) fn attempt(&self, outcome: AttemptOutcome, code: Option<&str>, took: Duration) {
        let Some(on) = &self.0 else { return };
        let (outcome, code) = (outcome.name().into(), code.unwrap_or_default().into());
        let labels = vec![("stage", on.stage.clone()), ("outcome", outcome), ("code", code)];
        on.attempts.get_or_create(&labels).inc();
        on.attempt_times.observe(took.as_secs_f64());
    }
}

/// A delivery in progress.
#[derive(Debug)]
#[must_use = "the delivery is in progress until it is dropped"]
pub(crate) struct DeliveryTimer(Option<(Instant, Arc<StageSeries>)>);

impl Drop for DeliveryTimer {
    fn drop(&mut self) {
        if let Some((started, on)) = &self.0 {
            let took = started.elapsed().as_secs_f64();
            on.in_flight.dec();
            on.deliveries.observe(took);
            on.deliver.inc_by(took);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value is the index of its series.
    #[test]
    fn labels_are_listed_in_the_order_of_their_values() {
        assert!(Phase::ALL.iter().enumerate().all(|(index, phase)| *phase as usize == index));
        assert!(FlushCause::ALL.iter().enumerate().all(|(index, cause)| *cause as usize == index));
    }
}
