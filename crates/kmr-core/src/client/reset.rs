//! The operator's own hand on a group's offsets: [`reset_offsets`].

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;

use super::connect::{Connect, open, queue};
use super::context::Client;
use super::logs::logs;
use super::topic_ids::TopicIds;
use super::{commits, starts};
use crate::commit_metadata::Idle;
use crate::config::{ClientConfig, ResetPolicy};
use crate::error::{Error, log_bounds};
use crate::member::{CommitOutcome, LogPoint, OffsetCommit};
use crate::record::TopicPartition;

/// How long an unreachable broker is tried, and the group's coordinator.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is kept back for prefetching: nothing is fetched.
const PREFETCH: usize = 1 << 20;

/// Commits these offsets for the group of `config` (`group.id`) and starts a new epoch of exactly-once delivery at them. The group has to
/// be stopped: none of its consumers may run.
///
/// A consumer with [`exactly_once`](crate::ConsumerBuilder::exactly_once) stops at an offset that it, or this function, did
/// not commit: what was inserted up to there, and what comes again, only the operator can know. This is how the operator says it.
/// What is read again in a new epoch is inserted again: its blocks have other tokens. A plan that is open is
/// dropped; whether its block was inserted has to be found out in the sink first, by its offsets.
///
/// Partitions that are not named stay as they are. Consumers in at-least-once mode start at such an offset as at any other.
///
/// # Errors
/// [`Error::Config`]: a setting is missing, no offsets are given, one of them is not in its log (from the lowest there to the one behind
/// the last record), or the group has consumers; nothing was committed. Otherwise, whatever the cluster says; offsets of some
/// partitions may be committed then, and the same call can be made again.
///
/// # Cancel safety
/// Dropping the future may leave the offsets committed, or not.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), kmr_core::Error> {
/// use kmr_core::{ClientConfig, TopicPartition, reset_offsets};
///
/// let config = ClientConfig::new().set("bootstrap.servers", "127.0.0.1:9092").set("group.id", "orders-to-clickhouse");
/// reset_offsets(config, [(TopicPartition::new("orders", 0), 1_500)].into()).await
/// # }
/// ```
pub async fn reset_offsets(
    config: ClientConfig,
    offsets: BTreeMap<TopicPartition, i64>,
) -> Result<(), Error> {
    config.required("group.id")?;
    let partitions: Vec<TopicPartition> = offsets.keys().cloned().collect();
    if partitions.is_empty() {
        return Err(Error::Config("no offsets; name at least one partition".to_owned()));
    }
    let mut topics: Vec<String> = partitions.iter().map(|partition| partition.topic().to_owned()).collect();
    topics.dedup();
    let connect = Connect {
        topics,
        config,
        start_at: None,
        reset: ResetPolicy::Fail,
        without_group: false,
        reports_ends: false,
        exactly_once: false,
        reader: Default::default(),
        prefetch_bytes: PREFETCH,
        timeout: PATIENCE,
        memory: Default::default(),
    };
    let opened = open(&connect).await?;
    let client = &opened.client;
    let topic_ids = TopicIds::new(queue(client)?);
    topic_ids.note(client, &partitions).await;
    let logs = logs(client, &topic_ids, &partitions).await?;
    let asked = offsets.clone();
    client.call("offsets", move |client| check(client, &partitions, &asked)).await??;
    let commit = |(partition, offset): (&TopicPartition, &i64)| {
        let log = logs.get(partition)?;
        // Epochs are times: later ones are larger, whoever started them.
        let idle = Idle { log: log.id.clone(), epoch: log.millis, offset: *offset };
        Some(OffsetCommit { partition: partition.clone(), offset: *offset, metadata: Some(idle.text()) })
    };
    let commits: Vec<OffsetCommit> = offsets.iter().filter_map(commit).collect();
    let replies = queue(client)?;
    let outcomes = timeout(PATIENCE, commits::commit(&replies, &commits)).await;
    let outcomes = outcomes.unwrap_or_else(|_| vec![CommitOutcome::Retryable("no answer".to_owned())]);
    match commits.iter().zip(&outcomes).find(|(_, outcome)| **outcome != CommitOutcome::Committed) {
        None => Ok(()),
        Some((commit, outcome)) => Err(refused(commit, outcome)),
    }
}

/// Refuses offsets that no consumer could start from.
fn check(
    client: &Client,
    partitions: &[TopicPartition],
    offsets: &BTreeMap<TopicPartition, i64>,
) -> Result<(), Error> {
    let low = starts::log_offsets(client, partitions, LogPoint::Low)?;
    let high = starts::log_offsets(client, partitions, LogPoint::End)?;
    for (partition, offset) in offsets {
        let bound = |offsets: &BTreeMap<TopicPartition, i64>| offsets.get(partition).copied().unwrap_or(-1);
        let (low, high) = (bound(&low), bound(&high));
        if !(low..=high).contains(offset) {
            return Err(Error::Config(format!(
                "offset {offset} for {partition} is not in the log, {}; nothing was committed: name one from the lowest there to the one \
                 behind the last record",
                log_bounds(low, high)
            )));
        }
    }
    Ok(())
}

fn refused(commit: &OffsetCommit, outcome: &CommitOutcome) -> Error {
    let reason = outcome.reason().unwrap_or_default().to_owned();
    match outcome {
        CommitOutcome::NotOwned(_) => Error::Config(format!(
            "the group has consumers, so its offsets cannot be reset; stop them and wait until the group is empty ({reason})"
        )),
        outcome => Error::Client {
            operation: format!("commit of {} offset {}", commit.partition, commit.offset),
            source: reason.into(),
            retryable: matches!(outcome, CommitOutcome::Retryable(_)),
        },
    }
}
