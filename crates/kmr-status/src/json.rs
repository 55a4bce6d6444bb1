//! The JSON of a status. Names are stable: docs/commands.md describes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kmr_core::{
    ConsumerState, DeliveryStatus, Event, EventKind, PartitionStatus, StageStatus, Status, TopicPartition,
};
use serde_json::{Value, json};

use crate::reason;

/// The status as JSON. `actions`: whether the server accepts actions.
pub(crate) fn status(status: &Status, actions: bool) -> Value {
    let partitions: Vec<Value> = status.partitions.iter().map(partition).collect();
    json!({
        "version": 1,
        "time": millis(SystemTime::now()),
        "group": status.group,
        "instance": status.instance,
        "state": state(status.state),
        "reason": reason::of(status),
        "connected": status.connected,
        "healthy": status.healthy,
        "responsive": status.responsive,
        "uptime_seconds": seconds(status.uptime),
        "all_paused": status.all_paused,
        "stages": status.stages.iter().map(stage).collect::<Vec<_>>(),
        "partitions": partitions,
        "deliveries": status.deliveries.iter().map(delivery).collect::<Vec<_>>(),
        "memory": {
            "budget_bytes": status.memory_budget,
            "used_bytes": status.memory_used,
            "unmapped_bytes": status.unmapped_bytes,
        },
        "totals": {
            "records": status.totals.records,
            "bytes": status.totals.bytes,
            "dead_letters": status.totals.dead_letters,
            "rows": rows(status),
            "commits": status.totals.commits,
            "rebalances": status.totals.rebalances,
            "client_replacements": status.totals.reconnects,
            "offset_resets": status.totals.resets,
        },
        "lag_records": lag(status),
        "lag_seconds": lag_seconds(status),
        "events": status.events.iter().map(event).collect::<Vec<_>>(),
        "actions": actions,
    })
}

/// Lag of all partitions in records.
pub(crate) fn lag(status: &Status) -> i64 {
    status.partitions.values().filter_map(|partition| partition.lag_records).sum()
}

/// The highest lag of a partition, in seconds.
fn lag_seconds(status: &Status) -> f64 {
    let lags = status.partitions.values().filter_map(|partition| partition.lag_time);
    seconds(lags.max().unwrap_or_default())
}

/// Rows of all stages but `reduce_err`.
pub(crate) fn rows(status: &Status) -> u64 {
    let rows = status.totals.rows.iter().filter(|(stage, _)| *stage != "reduce_err");
    rows.map(|(_, rows)| rows).sum()
}

pub(crate) fn state(state: ConsumerState) -> &'static str {
    match state {
        ConsumerState::Starting => "starting",
        ConsumerState::Running => "running",
        ConsumerState::Reconnecting => "reconnecting",
        ConsumerState::Stopping => "stopping",
        ConsumerState::Ended => "ended",
        _ => "unknown",
    }
}

fn partition((partition, status): (&TopicPartition, &PartitionStatus)) -> Value {
    json!({
        "topic": partition.topic(),
        "partition": partition.partition(),
        "position": status.position,
        "committed": status.committed,
        "log_end": status.log_end,
        "lag_records": status.lag_records,
        "lag_seconds": status.lag_time.map(seconds),
        "oldest_unfinished": status.oldest_unfinished,
        "age_seconds": seconds(status.age),
        "waits_for": status.waits_for,
        "paused": status.paused,
        "late": status.late,
        "unmapped_bytes": status.unmapped_bytes,
    })
}

fn stage(stage: &StageStatus) -> Value {
    json!({
        "name": stage.name,
        "waiting": stage.waiting,
        "capacity": stage.capacity,
        "deliveries": stage.deliveries,
        "max_deliveries": stage.max_deliveries,
        "rows": stage.rows,
    })
}

fn delivery(delivery: &DeliveryStatus) -> Value {
    json!({
        "stage": delivery.stage,
        "attempt": delivery.attempt,
        "seconds": seconds(delivery.elapsed),
        "last_error": delivery.last_error,
    })
}

fn event(event: &Event) -> Value {
    let kind = match event.kind {
        EventKind::Rebalance => "rebalance",
        EventKind::Error => "error",
        EventKind::DeadLetter => "dead_letter",
        _ => "other",
    };
    json!({
        "time": millis(event.time),
        "first_time": millis(event.first_time),
        "kind": kind,
        "count": event.count,
        "topic": event.partition.as_ref().map(TopicPartition::topic),
        "partition": event.partition.as_ref().map(TopicPartition::partition),
        "offset": event.offset,
        "stage": event.stage,
        "text": event.text,
    })
}

/// Seconds, to the millisecond.
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1_000.0
}

/// Milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
