//! Puts the status of a consumer together, from its health, its counters and a scrape.

use std::collections::BTreeMap;
use std::time::Duration;

use super::handle::ConsumerHandle;
use crate::health::{Health, PartitionHealth};
use crate::metrics::{PartitionReading, Readings, StageReading};
use crate::record::TopicPartition;
use crate::stats::Stats;
use crate::status::{ConsumerState, DeliveryStatus, PartitionStatus, StageStatus, Status};

impl ConsumerHandle {
    /// What the consumer is doing at this moment: tasks, partitions, deliveries, memory, events.
    ///
    /// Reads the running consumer as [`metrics`](Self::metrics) does, so lag and committed offsets
    /// are exact. It can be called at any time: before the run, during a rebalance, after the end.
    /// It waits for the task that commits, a second at most. After
    /// [`record_metrics(false)`](crate::ConsumerBuilder::record_metrics) there are no stages, no
    /// events, and of each partition only its health.
    ///
    /// It costs about as much as a health check, some microseconds per partition. So call it
    /// once a second, not per record.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn status(&self) -> Status {
        let readings = self.counters.metrics.read().await;
        let (health, totals) = (self.health(), self.stats());
        let deliveries = self.controls.board.in_progress();
        let Readings { partitions, stages, events, responsive } = match readings {
            Some(readings) => readings,
            None => Readings::only_health(health.partitions.keys()),
        };
        let partitions = partitions_of(partitions, &health);
        Status {
            group: self.group.to_string(),
            instance: self.instance.as_deref().map(str::to_owned),
            state: self.state(&health),
            connected: health.connected,
            healthy: health.is_healthy(),
            responsive,
            uptime: self.built.elapsed(),
            all_paused: self.controls.desired_pauses().all,
            stages: stages.into_iter().map(|stage| stage_of(stage, &deliveries, &totals)).collect(),
            unmapped_bytes: partitions.values().map(|partition| partition.unmapped_bytes).sum(),
            partitions,
            deliveries,
            memory_budget: self.budget.capacity(),
            memory_used: totals.bytes_held,
            totals,
            events,
        }
    }

    fn state(&self, health: &Health) -> ConsumerState {
        let board = &self.controls.board;
        if self.controls.stop.is_closed() {
            ConsumerState::Ended
        } else if board.is_stopping() {
            ConsumerState::Stopping
        } else if health.connected {
            ConsumerState::Running
        } else if board.has_connected() {
            ConsumerState::Reconnecting
        } else {
            ConsumerState::Starting
        }
    }
}

/// The health of a partition is known from the first health check on, a second after its
/// assignment, and for up to a second after its end.
fn partitions_of(
    readings: Vec<PartitionReading>,
    health: &Health,
) -> BTreeMap<TopicPartition, PartitionStatus> {
    let status = |reading: PartitionReading| {
        let known = health.partitions.get(&reading.partition).cloned().unwrap_or_default();
        let PartitionHealth { oldest_unfinished, age, waits_for, paused, late, unreachable_leader: _ } =
            known;
        let status = PartitionStatus {
            position: reading.position,
            committed: reading.committed,
            log_end: reading.log_end,
            lag_records: reading.lag,
            lag_time: reading.lag_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            unmapped_bytes: reading.unmapped_bytes,
            oldest_unfinished,
            age,
            waits_for,
            paused,
            late,
        };
        (reading.partition, status)
    };
    readings.into_iter().map(status).collect()
}

fn stage_of(stage: StageReading, deliveries: &[DeliveryStatus], totals: &Stats) -> StageStatus {
    let StageReading { name, waiting, capacity, max_deliveries } = stage;
    let deliveries = deliveries.iter().filter(|delivery| delivery.stage == *name).count();
    let rows = totals.rows.get(&*name).copied().unwrap_or(0);
    StageStatus { name: name.to_string(), waiting, capacity, deliveries, max_deliveries, rows }
}
