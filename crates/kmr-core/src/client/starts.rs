//! Where assigned partitions start, and what the logs hold: all that is asked of the brokers about offsets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::context::Client;
use super::fetcher::list;
use super::positions::Places;
use crate::config::{ResetPolicy, StartAt};
use crate::error::Error;
use crate::member::{LogPoint, Start};
use crate::record::TopicPartition;
use crate::telemetry;

/// One try at reading offsets.
const REQUEST: Duration = Duration::from_secs(5);
/// All tries together: the group's coordinator, or a partition's leader, may be moving.
const ALL_TRIES: Duration = Duration::from_secs(60);
/// The same for what somebody else asks of the logs, while the control thread does nothing else.
const LOG_TRIES: Duration = Duration::from_secs(20);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Where partitions start for which nothing is committed.
#[derive(Clone, Debug)]
pub(super) struct StartPolicy {
    pub(super) start_at: Option<StartAt>,
    /// For what `start_at` does not name.
    pub(super) reset: ResetPolicy,
}

/// What the group has committed. `None`: `go_on` says that nobody needs it any more.
pub(super) fn committed(
    client: &Client,
    partitions: &[TopicPartition],
    group: &str,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<HashMap<TopicPartition, Start>>, Error> {
    let what = format!("reading the committed offsets of group {group:?}");
    let places: Places = partitions.iter().map(|partition| (partition.clone(), Offset::Invalid)).collect();
    let asked = || client.committed_offsets(list_of(&places)?, REQUEST).and_then(|list| to_map(&list));
    match persist(client, &what, ALL_TRIES, go_on, asked) {
        Err(Error::Authorization { .. }) => {
            Err(Error::Authorization { resource: format!("group {group:?}") })
        }
        committed => committed,
    }
}

/// Where each partition starts: as committed, else as the policy says, which is asked once for all. `None`: nobody needs it
/// any more.
pub(super) fn resolve(
    client: &Client,
    partitions: &[TopicPartition],
    mut committed: HashMap<TopicPartition, Start>,
    policy: &StartPolicy,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<Vec<Start>>, Error> {
    let missing: Vec<TopicPartition> =
        partitions.iter().filter(|partition| !committed.contains_key(*partition)).cloned().collect();
    let Some(chosen) = choose(client, &missing, policy, go_on)? else { return Ok(None) };
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

type OffsetRange = BTreeMap<TopicPartition, i64>;

/// Offsets for partitions for which nothing is committed; those that start at the lowest offset are left out.
fn choose(
    client: &Client,
    missing: &[TopicPartition],
    policy: &StartPolicy,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<OffsetRange>, Error> {
    let read = |partitions: &[TopicPartition], point| {
        let what = what(partitions, point);
        persist(client, &what, ALL_TRIES, go_on, || try_log_offsets(client, partitions, point))
    };
    let mut chosen = match &policy.start_at {
        Some(StartAt::Timestamp(millis)) => return read(missing, LogPoint::Time(*millis)),
        Some(StartAt::OffsetRange(offsets)) => {
            let named = missing.iter().filter_map(|p| Some((p.clone(), *offsets.get(p)?)));
            named.collect()
        }
        None => OffsetRange::new(),
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
        // Resolved here, once, and committed: a restart before the first record must not skip what came in between.
        (ResetPolicy::Latest, _) => match read(&rest, LogPoint::End)? {
            Some(ends) => chosen.extend(ends),
            None => return Ok(None),
        },
        (ResetPolicy::Fail, Some(partition)) => {
            let (low, high) = watermarks(client, partition).unwrap_or((-1, -1));
            return Err(Error::OffsetOutOfRange { partition: partition.clone(), offset: None, low, high });
        }
    }
    Ok(Some(chosen))
}

fn bound(offsets: &OffsetRange, partition: &TopicPartition) -> i64 {
    offsets.get(partition).copied().unwrap_or(-1)
}

/// Offsets of a place in the logs of partitions: one request for all of a broker, and more of them for 20 s if it fails.
pub(super) fn log_offsets(
    client: &Client,
    partitions: &[TopicPartition],
    point: LogPoint,
) -> Result<OffsetRange, Error> {
    let (what, go_on) = (what(partitions, point), || !client.context().is_leaving());
    let read = persist(client, &what, LOG_TRIES, &go_on, || try_log_offsets(client, partitions, point))?;
    let reason = || "the client is on its way out".to_owned();
    read.ok_or_else(|| Error::Client { operation: what, source: reason().into(), retryable: true })
}

fn what(partitions: &[TopicPartition], point: LogPoint) -> String {
    format!("reading offsets of {partitions:?} ({point:?})")
}

fn try_log_offsets(
    client: &Client,
    partitions: &[TopicPartition],
    point: LogPoint,
) -> Result<OffsetRange, KafkaError> {
    if partitions.is_empty() {
        return Ok(OffsetRange::new());
    }
    let asked = match point {
        LogPoint::Low => Offset::Beginning,
        LogPoint::End => Offset::End,
        // Negative timestamps mean other things in the protocol.
        LogPoint::Time(millis) => Offset::Offset(millis.max(0)),
    };
    let places: Places = partitions.iter().map(|partition| (partition.clone(), asked)).collect();
    let answer = client.offsets_for_times(list_of(&places)?, REQUEST)?;
    let (mut offsets, mut at_the_end) = (OffsetRange::new(), Vec::new());
    for element in answer.elements() {
        element.error()?;
        let partition = TopicPartition::new(element.topic(), element.partition());
        match element.offset() {
            Offset::Offset(offset) => drop(offsets.insert(partition, offset)),
            // No record is that young.
            _ if matches!(point, LogPoint::Time(_)) => at_the_end.push(partition),
            _ => return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition)),
        }
    }
    drop(answer);
    offsets.extend(try_log_offsets(client, &at_the_end, LogPoint::End)?);
    Ok(offsets)
}

/// The lowest offset of a partition, and the one behind its last record.
pub(super) fn watermarks(client: &Client, partition: &TopicPartition) -> Option<(i64, i64)> {
    client.fetch_watermarks(partition.topic(), partition.partition(), REQUEST).ok()
}

/// Tries until it succeeds, it cannot, the time for all tries is up, or nobody needs it any more (`None`).
fn persist<T>(
    client: &Client,
    what: &str,
    all_tries: Duration,
    go_on: &dyn Fn() -> bool,
    attempt: impl Fn() -> Result<T, KafkaError>,
) -> Result<Option<T>, Error> {
    let deadline = Instant::now() + all_tries;
    loop {
        if client.context().is_abandoned() || !go_on() {
            return Ok(None);
        }
        let error = match attempt() {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                return Err(Error::Authorization { resource: what.to_owned() });
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                return Err(Error::Authorization { resource: "a subscribed topic".to_owned() });
            }
            _ if Instant::now() >= deadline => {
                let (what, reason) = (what.to_owned(), error.to_string());
                return Err(Error::Client { operation: what, source: reason.into(), retryable: true });
            }
            _ => telemetry::client_error(&format!("{what}: {error}")),
        }
        // Some errors come back at once; the next try should not.
        std::thread::sleep(PAUSE);
    }
}

fn list_of(places: &Places) -> Result<TopicPartitionList, KafkaError> {
    list(places).map_err(|_| KafkaError::OffsetFetch(RDKafkaErrorCode::InvalidArgument))
}

/// Own values at once: a list that outlives the client would hang its drop.
fn to_map(list: &TopicPartitionList) -> Result<HashMap<TopicPartition, Start>, KafkaError> {
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
