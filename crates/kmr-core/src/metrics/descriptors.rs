//! Names and help texts of the metrics, as a scrape shows them. docs/metrics.md describes them.
//!
//! A name ends with its unit, and the name of a counter with `_total`. Units are base units.

use prometheus_client::registry::Unit;

/// Name and help text of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
}

impl Descriptor {
    /// The name without the endings that the encoder adds, and the unit.
    pub(super) fn parts(self) -> (&'static str, Option<Unit>) {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        if let Some(name) = name.strip_suffix("_seconds") {
            (name, Some(Unit::Seconds))
        } else if let Some(name) = name.strip_suffix("_bytes") {
            (name, Some(Unit::Bytes))
        } else {
            (name, None)
        }
    }
}

macro_rules! descriptors {
    ($($constant:ident = $name:literal: $help:literal;)*) => {
        $(pub(super) const $constant: Descriptor = Descriptor { name: $name, help: $help };)*
    };
}

descriptors! {
    CONNECTED = "kmr_connected": "Whether the consumer has a Kafka client";
    ASSIGNED = "kmr_assigned_partitions": "Partitions that the consumer owns";
    RECORDS = "kmr_records_total": "Records that left the map stages: mapped, skipped or failed";
    RECORD_BYTES = "kmr_record_bytes_total": "Bytes of keys and payloads of kmr_records_total";
    PHASE = "kmr_phase_seconds_total": "Time by phase, summed over tasks";
    BATCHES = "kmr_batches_total": "Batches that a stage closed for delivery, by the cause";
    BATCH_ROWS = "kmr_batch_rows": "Rows of a batch";
    DELIVERED_ROWS = "kmr_delivered_rows_total": "Rows that the sink of a stage accepted";
    IN_FLIGHT = "kmr_deliveries_in_flight": "Deliveries in progress";
    DELIVERY = "kmr_delivery_duration_seconds": "Time of a delivery, with its retries";
    ATTEMPTS = "kmr_delivery_attempts_total": "Attempts of deliveries, by outcome and the sink's error code";
    ATTEMPT = "kmr_delivery_attempt_duration_seconds": "Time of an attempt";
    DEAD_LETTERS = "kmr_dead_letters_total": "Dead letters, by the stage that failed and the code of its error";
    MEMORY_BUDGET = "kmr_memory_budget_bytes": "Memory budget without the share of the Kafka client";
    MEMORY_USED = "kmr_memory_used_bytes": "Bytes of the memory budget in use";
    COMMITS = "kmr_commit_requests_total": "Commit requests sent";
    COMMITTED = "kmr_offset_commits_total": "Commits of one partition's offset, by outcome";
    COMMIT = "kmr_commit_duration_seconds": "Time until a commit request was answered";
    REBALANCES = "kmr_rebalances_total": "Rebalances received";
    REBALANCE = "kmr_rebalance_duration_seconds": "Time until a rebalance was answered, drains included";
    RESETS = "kmr_offset_resets_total": "Starting positions that a policy chose";
    REPLACEMENTS = "kmr_client_replacements_total": "Failed Kafka clients that were replaced";
    BREAKER = "kmr_circuit_breaker_tripped": "Whether the circuit breaker has tripped";
    WATCHDOG = "kmr_watchdog_actions_total": "What the watchdog did about partitions without progress";
    SCALABLE_LAG = "kmr_scalable_lag_records": "Lag that another consumer of the group could take over";
    POSITION = "kmr_partition_position": "Offset of the next record to receive";
    COMMITTED_OFFSET = "kmr_partition_committed_offset": "Offset that is committed";
    LOG_END = "kmr_partition_log_end_offset": "Offset after the last record of the log";
    LAG = "kmr_partition_lag_records": "Offsets from the oldest unfinished record to the end of the log";
    LAG_SECONDS = "kmr_partition_lag_seconds": "Age of the oldest unfinished record, by its timestamp";
    UNFINISHED = "kmr_partition_unfinished_seconds": "How long the oldest unfinished record has been the oldest";
    LATE = "kmr_partition_late": "Whether kmr_partition_unfinished_seconds has reached warn_after";
    PAUSED = "kmr_partition_paused": "Whether the partition is paused";
}
