//! Requests for offsets: committed offsets, starting positions, and the bounds of logs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::context::Client;
use super::errors::retryable;
use super::first_topics::FirstTopics;
use super::partition_list::{PartitionOffsets, native_list, without_offsets};
use super::timeouts;
use crate::config::{ResetPolicy, StartAt};
use crate::error::Error;
use crate::member::{LogPoint, Start};
use crate::record::TopicPartition;
use crate::telemetry;

/// All attempts together. The group coordinator or a partition's leader may be moving.
const START_ATTEMPTS: Duration = Duration::from_secs(60);
/// The same for requests outside of an assignment. Meanwhile the control thread does nothing else.
const LOG_ATTEMPTS: Duration = Duration::from_secs(20);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// The starting position of partitions without a committed offset.
#[derive(Clone, Debug)]
pub(super) struct StartPolicy {
    pub(super) start_at: Option<StartAt>,
    /// For partitions that `start_at` does not name.
    pub(super) reset: ResetPolicy,
    /// What was added later starts at the lowest offset, also under `ResetPolicy::Latest`.
    pub(super) first_topics: FirstTopics,
}

/// The committed offsets of the group. `None`: `is_needed` returned `false`.
pub(super) fn committed(
    client: &Client,
    partitions: &[TopicPartition],
    group: &str,
    is_needed: &dyn Fn() -> bool,
) -> Result<Option<HashMap<TopicPartition, Start>>, Error> {
    let what = format!("reading the committed offsets of group {group:?}");
    let described = Described { what, receiver: Receiver::Coordinator, limit: START_ATTEMPTS };
    let targets = without_offsets(partitions);
    let request = || {
        let committed = client.committed_offsets(offset_list(&targets)?, timeouts::OFFSETS)?;
        to_starts(&committed)
    };
    match retry(client, &described, is_needed, request) {
        Err(Error::Authorization { .. }) => {
            Err(Error::Authorization { resource: format!("group {group:?}") })
        }
        committed => committed,
    }
}

/// The starting position of each partition: the committed offset, or else the offset that the
/// policy chooses, in one request for all. `None`: `is_needed` returned `false`.
pub(super) fn resolve(
    client: &Client,
    partitions: &[TopicPartition],
    mut committed: HashMap<TopicPartition, Start>,
    policy: &StartPolicy,
    is_needed: &dyn Fn() -> bool,
) -> Result<Option<Vec<Start>>, Error> {
    let missing: Vec<TopicPartition> =
        partitions.iter().filter(|partition| !committed.contains_key(*partition)).cloned().collect();
    let Some(chosen) = choose(client, &missing, policy, is_needed)? else { return Ok(None) };
    let start = |partition: &TopicPartition| {
        let start = committed.remove(partition).unwrap_or_else(|| {
            let offset = chosen.get(partition).copied();
            Start { partition: partition.clone(), offset, chosen: true, metadata: None, log: None }
        });
        telemetry::position_resolved(partition, start.offset.filter(|_| !start.chosen));
        start
    };
    Ok(Some(partitions.iter().map(start).collect()))
}

type Offsets = BTreeMap<TopicPartition, i64>;

/// The offsets that the policy chooses for partitions without a committed offset. Partitions that
/// start at the lowest offset are left out.
fn choose(
    client: &Client,
    missing: &[TopicPartition],
    policy: &StartPolicy,
    is_needed: &dyn Fn() -> bool,
) -> Result<Option<Offsets>, Error> {
    let read = |partitions: &[TopicPartition], point| {
        let described = describe(partitions, point, START_ATTEMPTS);
        retry(client, &described, is_needed, || try_log_offsets(client, partitions, point))
    };
    let mut chosen = match &policy.start_at {
        Some(StartAt::Timestamp(millis)) => return read(missing, LogPoint::Time(*millis)),
        Some(StartAt::Offsets(offsets)) => {
            let named = missing.iter().filter_map(|p| Some((p.clone(), *offsets.get(p)?)));
            named.collect()
        }
        None => Offsets::new(),
    };
    let named: Vec<TopicPartition> = chosen.keys().cloned().collect();
    let Some(low) = read(&named, LogPoint::Low)? else { return Ok(None) };
    let Some(high) = read(&named, LogPoint::End)? else { return Ok(None) };
    for (partition, offset) in &chosen {
        let (low, high) = (bound(&low, partition), bound(&high, partition));
        if !(low..=high).contains(offset) {
            let (partition, offset) = (partition.clone(), Some(*offset));
            return Err(Error::OffsetOutOfRange { partition, offset, low, high });
        }
    }
    let rest: Vec<TopicPartition> = missing.iter().filter(|p| !chosen.contains_key(*p)).cloned().collect();
    match (policy.reset, rest.first()) {
        (_, None) | (ResetPolicy::Earliest, _) => {}
        // Resolved here, once, and committed. Otherwise a restart before the first record would
        // skip the records in between.
        (ResetPolicy::Latest, _) => {
            let (added, rest): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|partition| policy.first_topics.is_added(partition));
            added.iter().for_each(telemetry::partition_added);
            let Some(lows) = read(&added, LogPoint::Low)? else { return Ok(None) };
            let Some(ends) = read(&rest, LogPoint::End)? else { return Ok(None) };
            chosen.extend(lows.into_iter().chain(ends));
        }
        (ResetPolicy::Fail, Some(partition)) => {
            let (low, high) = log_bounds(client, partition).unwrap_or((-1, -1));
            return Err(Error::OffsetOutOfRange { partition: partition.clone(), offset: None, low, high });
        }
    }
    Ok(Some(chosen))
}

fn bound(offsets: &Offsets, partition: &TopicPartition) -> i64 {
    offsets.get(partition).copied().unwrap_or(-1)
}

/// Offsets of `point` in the logs of partitions: one request for all partitions of a broker, with
/// retries for 20 s.
pub(super) fn log_offsets(
    client: &Client,
    partitions: &[TopicPartition],
    point: LogPoint,
) -> Result<Offsets, Error> {
    let described = describe(partitions, point, LOG_ATTEMPTS);
    let is_needed = || !client.context().is_leaving();
    let read = || try_log_offsets(client, partitions, point);
    let read = retry(client, &described, &is_needed, read)?;
    read.ok_or_else(|| retryable(described.what, "the client is closing"))
}

/// A request, for its errors and log lines.
struct Described<'a> {
    what: String,
    receiver: Receiver<'a>,
    /// For all attempts.
    limit: Duration,
}

/// The brokers that a request goes to. If one of them does not respond, the request fails.
enum Receiver<'a> {
    Coordinator,
    /// The leaders of these partitions.
    Leaders(&'a [TopicPartition]),
}

fn describe(partitions: &[TopicPartition], point: LogPoint, limit: Duration) -> Described<'_> {
    let what = format!("reading offsets of {partitions:?} ({point:?})");
    Described { what, receiver: Receiver::Leaders(partitions), limit }
}

impl Described<'_> {
    /// What failed, and the addresses of the brokers that the client has no connection to.
    fn failed(&self, client: &Client) -> String {
        let Some(report) = client.context().statistics.wait(timeouts::ADDRESSES) else {
            return self.what.clone();
        };
        let what = &self.what;
        match &self.receiver {
            Receiver::Coordinator => match &report.coordinator {
                Some(address) => format!("{what}: the coordinator is {address}"),
                None => format!("{what}: the brokers name no coordinator"),
            },
            Receiver::Leaders(partitions) => match report.unreachable(partitions) {
                unreachable if unreachable.is_empty() => what.clone(),
                unreachable => format!("{what}: no connection to {}", unreachable.join(", ")),
            },
        }
    }
}

fn try_log_offsets(
    client: &Client,
    partitions: &[TopicPartition],
    point: LogPoint,
) -> Result<Offsets, KafkaError> {
    if partitions.is_empty() {
        return Ok(Offsets::new());
    }
    let offset = match point {
        LogPoint::Low => Offset::Beginning,
        LogPoint::End => Offset::End,
        // In the protocol negative timestamps have other meanings.
        LogPoint::Time(millis) => Offset::Offset(millis.max(0)),
    };
    // Read first: a record that arrives between the two requests is not skipped.
    let ends = match point {
        LogPoint::Time(_) => try_log_offsets(client, partitions, LogPoint::End)?,
        LogPoint::Low | LogPoint::End => Offsets::new(),
    };
    let targets = partitions.iter().map(|partition| (partition.clone(), offset)).collect();
    let response = client.offsets_for_times(offset_list(&targets)?, timeouts::OFFSETS)?;
    let mut offsets = ends;
    for element in response.elements() {
        element.error()?;
        let partition = TopicPartition::new(element.topic(), element.partition());
        match element.offset() {
            Offset::Offset(offset) => drop(offsets.insert(partition, offset)),
            // No record has this timestamp or a later one, so the end stays.
            _ if matches!(point, LogPoint::Time(_)) => {}
            _ => return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition)),
        }
    }
    Ok(offsets)
}

/// The lowest offset of a partition, and the offset after its last record.
pub(super) fn log_bounds(client: &Client, partition: &TopicPartition) -> Option<(i64, i64)> {
    client.fetch_watermarks(partition.topic(), partition.partition(), timeouts::OFFSETS).ok()
}

/// Retries a request until it succeeds, cannot succeed, exceeds the time for all attempts, or is no
/// longer needed (`None`).
fn retry<T>(
    client: &Client,
    described: &Described<'_>,
    is_needed: &dyn Fn() -> bool,
    attempt: impl Fn() -> Result<T, KafkaError>,
) -> Result<Option<T>, Error> {
    let deadline = Instant::now() + described.limit;
    loop {
        if client.context().is_abandoned() || !is_needed() {
            return Ok(None);
        }
        let error = match attempt() {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                return Err(Error::Authorization { resource: described.what.clone() });
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                return Err(Error::Authorization { resource: "a subscribed topic".to_owned() });
            }
            _ if Instant::now() >= deadline => return Err(retryable(described.failed(client), error)),
            _ => telemetry::client_error(&format!("{}: {error}", described.failed(client))),
        }
        // Some errors return at once, so the next attempt waits.
        std::thread::sleep(PAUSE);
    }
}

fn offset_list(targets: &PartitionOffsets) -> Result<TopicPartitionList, KafkaError> {
    native_list(targets).map_err(|_| KafkaError::OffsetFetch(RDKafkaErrorCode::InvalidArgument))
}

/// Copies the list at once: a list that outlives the client would block the client's drop.
fn to_starts(list: &TopicPartitionList) -> Result<HashMap<TopicPartition, Start>, KafkaError> {
    let mut starts = HashMap::new();
    for element in list.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            let partition = TopicPartition::new(element.topic(), element.partition());
            let metadata = Some(element.metadata()).filter(|text| !text.is_empty()).map(Arc::from);
            let offset = Some(offset);
            let start = Start { partition: partition.clone(), offset, chosen: false, metadata, log: None };
            starts.insert(partition, start);
        }
    }
    Ok(starts)
}
