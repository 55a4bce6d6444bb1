//! Every log event of this crate. Names and fields are stable. Levels:
//!
//! * error: the consumer stops.
//! * warn: an operator should know.
//! * info: once per rebalance or start.
//! * debug: once per batch.

use std::time::Duration;

use crate::error::{BoxError, Error, error_chain};
use crate::graph::observe::leaders::SilenceWarning;
use crate::member::{CommitOutcome, Rebalance, SilentLeader};
use crate::record::TopicPartition;
use crate::stage::{Stage, StageError};

pub(crate) fn delivery_retried(
    stage: &Stage,
    rows: usize,
    attempt: u32,
    wait: Duration,
    error: &(dyn std::error::Error + Send + Sync + 'static),
) {
    tracing::warn!(name: "kmr.delivery_retried", %stage, rows, attempt, ?wait, error = error_chain(error), "delivery failed, trying again");
}

/// `loud`: no attempt of this partition was logged as a warning for a while.
pub(crate) fn map_retried(
    (partition, offset): (&TopicPartition, i64),
    failed: &StageError,
    attempt: u32,
    wait: Duration,
    loud: bool,
) {
    let (stage, error) = (&failed.stage, error_chain(&*failed.error));
    if loud {
        tracing::warn!(name: "kmr.map_retried", %partition, offset, %stage, attempt, ?wait, error, "map stage failed, trying again");
    } else {
        tracing::debug!(name: "kmr.map_retried", %partition, offset, %stage, attempt, ?wait, error, "map stage failed, trying again");
    }
}

pub(crate) fn map_gave_up(
    (partition, offset): (&TopicPartition, i64),
    failed: &StageError,
    attempts: u32,
    tried: Duration,
) {
    let (stage, error) = (&failed.stage, error_chain(&*failed.error));
    tracing::warn!(name: "kmr.map_gave_up", %partition, offset, %stage, attempts, ?tried, error, "map stage failed, retry limit reached, the record fails");
}

pub(crate) fn batch_dropped(stage: &Stage, rows: usize) {
    tracing::info!(name: "kmr.batch_dropped", %stage, rows, "open batch discarded, as partial_batch requires; its records stay uncommitted");
}

pub(crate) fn circuit_breaker_tripped(what: &str) {
    tracing::error!(name: "kmr.circuit_breaker_tripped", what, "circuit breaker tripped: too many records fail, the consumer stops");
}

pub(crate) fn rebalance_started(rebalance: &Rebalance) {
    let Rebalance { id, protocol, change, partitions } = rebalance;
    tracing::info!(name: "kmr.rebalance_started", id, ?protocol, ?change, ?partitions, "rebalance");
}

pub(crate) fn rebalance_answered(rebalance: &Rebalance, took: Duration) {
    tracing::info!(name: "kmr.rebalance_answered", id = rebalance.id, change = ?rebalance.change, ?took, "rebalance answered");
}

pub(crate) fn drain_timeout_passed(unfinished: &[TopicPartition]) {
    tracing::warn!(
        name: "kmr.drain_timeout_passed",
        ?unfinished,
        "drain timeout passed; unfinished records of these partitions stay uncommitted"
    );
}

pub(crate) fn commit_problem(partition: &TopicPartition, offset: i64, outcome: &CommitOutcome) {
    tracing::warn!(name: "kmr.commit_problem", %partition, offset, ?outcome, "offset not committed");
}

pub(crate) fn commit_unanswered(partitions: &str, waited: Duration) {
    tracing::warn!(
        name: "kmr.commit_unanswered",
        partitions,
        ?waited,
        "the group coordinator has not answered a commit yet; kmr commits nothing else until then"
    );
}

pub(crate) fn stray_records(topic: &str, partition: i32, records: usize) {
    tracing::debug!(name: "kmr.stray_records", topic, partition, records, "records of a partition that is not assigned; dropped");
}

/// `loud`: no such error of this partition was logged as a warning for a while.
pub(crate) fn partition_failed(partition: &TopicPartition, reason: &str, loud: bool) {
    if loud {
        tracing::warn!(name: "kmr.partition_failed", %partition, reason, "partition cannot be read at the moment");
    } else {
        tracing::debug!(name: "kmr.partition_failed", %partition, reason, "partition cannot be read at the moment");
    }
}

pub(crate) fn client_error(reason: &str) {
    tracing::warn!(name: "kmr.client_error", reason, "Kafka client reports an error; it recovers by itself");
}

pub(crate) fn client_error_again(reason: &str) {
    tracing::debug!(name: "kmr.client_error_again", reason, "Kafka client reports the same error again");
}

pub(crate) fn fetch_limit(response: Option<usize>, prefetch: Option<usize>) {
    tracing::debug!(
        name: "kmr.fetch_limit",
        { fetch.max.bytes = response, queued.min.messages = prefetch },
        "limits of fetches adapted to what records take in memory"
    );
}

pub(crate) fn setting_overridden(name: &str, value: &str, why: &str) {
    tracing::warn!(name: "kmr.setting_overridden", name, value, why, "Kafka setting replaced");
}

pub(crate) fn setting_risky(name: &str, value: &str, why: &str) {
    tracing::warn!(name: "kmr.setting_risky", name, value, why, "Kafka setting weakens a guarantee");
}

pub(crate) fn stopping(why: &str) {
    tracing::info!(name: "kmr.stopping", why, "stopping: intake ends, then kmr drains, flushes and commits");
}

pub(crate) fn client_failed(error: &Error) {
    tracing::warn!(
        name: "kmr.client_failed",
        error = error_chain(error),
        "Kafka client failed; its partitions are dropped without a commit, and a new client is created"
    );
}

pub(crate) fn client_not_replaced(error: &Error) {
    tracing::warn!(name: "kmr.client_not_replaced", error = error_chain(error), "no new Kafka client yet, retrying");
}

pub(crate) fn topic_deleted(topic: &str) {
    tracing::warn!(name: "kmr.topic_deleted", topic, "the new Kafka client does not find this topic, and starts without it");
}

pub(crate) fn client_replaced() {
    tracing::info!(name: "kmr.client_replaced", "a new Kafka client has joined the group");
}

pub(crate) fn client_renewing(why: &str) {
    tracing::info!(name: "kmr.client_renewing", changed = why, "credentials have changed: partitions are drained and committed, and a new Kafka client takes over");
}

/// `changed`: the files.
pub(crate) fn credentials_rejected(changed: &str, error: &Error) {
    tracing::warn!(name: "kmr.credentials_rejected", changed, error = error_chain(error), "a Kafka client with the changed credentials does not work; the consumer goes on with the earlier one");
}

/// `error` must not contain the token.
pub(crate) fn token_failed(error: &str) {
    tracing::warn!(name: "kmr.token_failed", error, "no new token for SASL/OAUTHBEARER, trying again; clients keep the last one until it expires");
}

pub(crate) fn token_received(life: Duration) {
    tracing::debug!(name: "kmr.token_received", ?life, "new token for SASL/OAUTHBEARER");
}

pub(crate) fn token_rejected() {
    tracing::warn!(name: "kmr.token_rejected", "a broker has rejected the token for SASL/OAUTHBEARER; getting another one");
}

pub(crate) fn sought(partition: &TopicPartition, offset: i64) {
    tracing::info!(name: "kmr.sought", %partition, offset, "partition continues at another offset, as a seek requested");
}

/// `log_bounds`: its first offset and its end.
pub(crate) fn offset_reset(
    partition: &TopicPartition,
    lost: i64,
    offset: i64,
    log_bounds: Option<(i64, i64)>,
) {
    tracing::warn!(name: "kmr.offset_reset", %partition, lost, offset, ?log_bounds, "offset is not in the log any more, or the log was truncated before it; the out-of-range policy chose a new one");
}

pub(crate) fn listener_panicked(listener: &str, message: &str) {
    tracing::warn!(name: "kmr.listener_panicked", listener, message, "a listener panicked; kmr calls it again for the next event");
}

pub(crate) fn partition_late(partition: &TopicPartition, offset: i64, age: Duration, waits_for: &str) {
    tracing::warn!(name: "kmr.partition_late", %partition, offset, ?age, waits_for, "partition is making no progress");
}

pub(crate) fn leader_silent(SilenceWarning { leader, partitions, age }: &SilenceWarning) {
    match leader {
        SilentLeader::Broker { id, address } => tracing::warn!(
            name: "kmr.leader_silent",
            address = &**address,
            broker = id,
            ?partitions,
            ?age,
            "leader does not respond; its partitions wait, and the others continue. Make its address reachable from \
             here, or correct advertised.listeners of the broker, unless it is restarting"
        ),
        SilentLeader::Unknown => tracing::warn!(
            name: "kmr.leader_missing",
            ?partitions,
            ?age,
            "partitions have no leader; they wait, and the others continue. Restore their brokers"
        ),
    }
}

pub(crate) fn offset_of_deleted_topic(partition: &TopicPartition, offset: Option<i64>) {
    tracing::warn!(name: "kmr.offset_of_deleted_topic", %partition, offset, "the committed offset belongs to a deleted topic of the same name; kmr starts at the lowest offset of the new one");
}

pub(crate) fn partition_restarts(partition: &TopicPartition, offset: i64, age: Duration, waits_for: &str) {
    tracing::warn!(name: "kmr.partition_restarts", %partition, offset, ?age, waits_for, "partition is stuck; kmr restarts it from its committed offset");
}

pub(crate) fn partition_restarted(partition: &TopicPartition, offset: i64) {
    tracing::warn!(name: "kmr.partition_restarted", %partition, offset, "partition was restarted");
}

pub(crate) fn runtime_stuck(time: Duration, exits: bool) {
    let what = if exits { "the process exits" } else { "end the process, or set exit_when_stuck(true)" };
    tracing::error!(
        name: "kmr.runtime_stuck",
        ?time,
        "Tokio's runtime is making no progress: mappers that do not return may hold its worker threads; {what}"
    );
}

pub(crate) fn stopped_early(why: &str) {
    tracing::info!(name: "kmr.stopped_early", why, "stopped before any record was read");
}

pub(crate) fn secondary_failure(error: &BoxError) {
    tracing::warn!(name: "kmr.secondary_failure", error = error_chain(&**error), "another failure during shutdown");
}

/// `level` is syslog's: 0 to 3 are errors, 4 a warning, 5 and 6 information.
pub(crate) fn client_log(level: i32, facility: &str, message: &str) {
    match level {
        0..=3 => tracing::error!(name: "kmr.client_log", target: "librdkafka", facility, "{message}"),
        4 => tracing::warn!(name: "kmr.client_log", target: "librdkafka", facility, "{message}"),
        5 | 6 => tracing::info!(name: "kmr.client_log", target: "librdkafka", facility, "{message}"),
        _ => tracing::debug!(name: "kmr.client_log", target: "librdkafka", facility, "{message}"),
    }
}

pub(crate) fn fetching_restarted(partitions: &dyn std::fmt::Debug) {
    tracing::info!(name: "kmr.fetching_restarted", ?partitions, "fetching restarted");
}

pub(crate) fn client_in_use() {
    tracing::warn!(name: "kmr.client_in_use", "the consumer has ended, and a record that a task still holds keeps its Kafka client");
}

pub(crate) fn left_group() {
    tracing::info!(name: "kmr.left_group", "left the group");
}

pub(crate) fn partition_added(partition: &TopicPartition) {
    tracing::info!(name: "kmr.partition_added", %partition, "partition was added while the consumer runs; it starts at its lowest offset");
}

pub(crate) fn position_resolved(partition: &TopicPartition, committed: Option<i64>) {
    tracing::debug!(name: "kmr.position_resolved", %partition, committed, "starting position");
}
