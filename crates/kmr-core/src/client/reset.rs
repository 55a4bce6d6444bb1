//! [`reset_offsets`]: an operator sets the offsets of a group.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;

use super::context::Client;
use super::coordinator_check::check_coordinator;
use super::errors::{permanent, retryable};
use super::handle::ClientRef;
use super::live_clients::LiveClients;
use super::logs::logs;
use super::native::queue::Queue;
use super::open::{OpenOptions, open};
use super::topic_ids::TopicIds;
use super::{commits, starts};
use crate::commit_metadata::IdleMarker;
use crate::config::ClientConfig;
use crate::error::{Error, log_bounds};
use crate::member::{CommitOutcome, LogPoint, OffsetCommit};
use crate::record::TopicPartition;

/// How long to try an unreachable broker, and the group coordinator.
const PATIENCE: Duration = Duration::from_secs(30);
/// The prefetch of a client that fetches nothing.
const PREFETCH: usize = 1 << 20;

/// Commits these offsets for the group of `config` (`group.id`) and starts a new epoch of
/// exactly-once delivery at them. Stop all consumers of the group before.
///
/// A consumer with [`exactly_once`](crate::ConsumerBuilder::exactly_once) stops at an offset that
/// neither it nor this function committed: only an operator can know what was inserted up to there
/// and what will be read again. With this function the operator confirms it. Records that are read
/// again in a new epoch are inserted again, because their blocks have other tokens. An open plan is
/// dropped. Check the sink by the plan's offsets before, to know whether its block was inserted.
///
/// Partitions that are not named keep their offsets. Consumers in at-least-once mode start at such
/// an offset as at any other.
///
/// # Errors
/// [`Error::Config`] if a setting is missing, no offsets are given, an offset is not in its log
/// (from the lowest one to the one after the last record), or the group has consumers. Nothing was
/// committed then. Other errors come from the cluster. Offsets of some partitions may be committed
/// then, and the same call can be repeated.
///
/// # Cancel safety
/// If the future is dropped, the offsets may be committed or not.
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
    let options = OpenOptions {
        topics,
        config,
        without_group: false,
        reports_ends: false,
        prefetch_bytes: PREFETCH,
        timeout: PATIENCE,
        live: LiveClients::default(),
        first_topics: Default::default(),
    };
    let ended = commit_once(&options, &partitions, &offsets).await;
    options.live.destroyed(PATIENCE).await;
    ended
}

/// Commits with a client that is dropped at the end.
async fn commit_once(
    options: &OpenOptions,
    partitions: &[TopicPartition],
    offsets: &BTreeMap<TopicPartition, i64>,
) -> Result<(), Error> {
    let opened = open(options).await?;
    check_coordinator(&opened, options, options.config.required("group.id")?).await?;
    let client = &opened.client;
    let commits = idle_markers(client, partitions, offsets).await?;
    let replies = Queue::new(client.clone())?;
    let outcomes = timeout(PATIENCE, commits::commit(&replies, &commits, None)).await;
    let outcomes = outcomes.unwrap_or_else(|_| vec![CommitOutcome::Retryable("no response".to_owned())]);
    match commits.iter().zip(&outcomes).find(|(_, outcome)| **outcome != CommitOutcome::Committed) {
        None => Ok(()),
        Some((commit, outcome)) => Err(commit_error(commit, outcome)),
    }
}

/// The commits: each offset with an idle marker of a new epoch.
async fn idle_markers(
    client: &ClientRef,
    partitions: &[TopicPartition],
    offsets: &BTreeMap<TopicPartition, i64>,
) -> Result<Vec<OffsetCommit>, Error> {
    let topic_ids = TopicIds::new(Queue::new(client.clone())?);
    topic_ids.note(client, partitions).await;
    let logs = logs(&topic_ids, partitions)?;
    let (checked, requested) = (partitions.to_vec(), offsets.clone());
    client.call("offsets", move |client| check_in_log(client, &checked, &requested)).await??;
    let commit = |(partition, offset): (&TopicPartition, &i64)| {
        let log = logs.get(partition)?;
        // Epochs are times, so a later one is larger, whichever program started it.
        let idle = IdleMarker { log: log.id.clone(), epoch: log.millis, offset: *offset };
        Some(OffsetCommit { partition: partition.clone(), offset: *offset, metadata: Some(idle.text()) })
    };
    Ok(offsets.iter().filter_map(commit).collect())
}

/// Rejects offsets that no consumer could start at.
fn check_in_log(
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
                "offset {offset} for {partition} is not in the log, {}; nothing was committed; name an \
                 offset from the lowest one to the one after the last record",
                log_bounds(low, high)
            )));
        }
    }
    Ok(())
}

fn commit_error(commit: &OffsetCommit, outcome: &CommitOutcome) -> Error {
    let reason = outcome.reason().unwrap_or_default();
    let what = format!("commit of {} offset {}", commit.partition, commit.offset);
    match outcome {
        CommitOutcome::NotOwned(_) => Error::Config(format!(
            "the group has consumers, so its offsets cannot be reset; stop them and wait until the group \
             is empty ({reason})"
        )),
        CommitOutcome::Retryable(_) => retryable(what, reason),
        _ => permanent(what, reason),
    }
}
