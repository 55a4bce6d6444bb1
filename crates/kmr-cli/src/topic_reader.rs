//! Reads ranges of a topic's log as a read_committed consumer does, without joining a group.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::kafka_client::{self, CapturingContext};
use crate::progress::Progress;

/// Timeout of one request.
pub(crate) const REQUEST: Duration = Duration::from_secs(10);
/// Reading fails after this time without a record, a partition end or an error.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) type LogConsumer = BaseConsumer<CapturingContext>;

/// The settings of a consumer that reads ranges.
pub(crate) fn configure(config: &mut ClientConfig, group: &str) {
    for (name, value) in [
        ("group.id", group),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "true"),
        // An offset that retention has deleted must be reported, not skipped.
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_committed"),
        // Payload only, for each consumer. Small records need three times as much memory.
        ("queued.max.messages.kbytes", "4096"),
        ("fetch.queue.backoff.ms", "5"),
    ] {
        config.set(name, value);
    }
    config.set_log_level(RDKafkaLogLevel::Info);
}

/// The result of a poll.
pub(crate) enum Event<'a> {
    Record(BorrowedMessage<'a>),
    End(i32),
    /// The next offset is no longer in the log.
    Deleted,
}

pub(crate) fn poll<'a>(consumer: &'a LogConsumer, topic: &str) -> anyhow::Result<Option<Event<'a>>> {
    match consumer.poll(Duration::from_millis(200)) {
        None => Ok(None),
        Some(Ok(message)) => Ok(Some(Event::Record(message))),
        Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Some(Event::End(partition))),
        Some(Err(KafkaError::MessageConsumption(
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
        ))) => Ok(Some(Event::Deleted)),
        // librdkafka retries by itself.
        Some(Err(error)) if is_transient(&error) => Ok(None),
        Some(Err(error)) => Err(anyhow!(error).context(format!("reading topic {topic:?}"))),
    }
}

fn is_transient(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::Resolve
        )
    )
}

pub(crate) fn assign(
    consumer: &LogConsumer,
    topic: &str,
    partitions: impl IntoIterator<Item = (i32, u64)>,
) -> anyhow::Result<()> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        list.add_partition_offset(topic, partition, Offset::Offset(offset.cast_signed()))?;
    }
    consumer.assign(&list).with_context(|| format!("assigning partitions of {topic:?}"))
}

/// What a reader of a range wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next record.
    Record,
    /// No more records of this record's partition.
    OtherPartitions,
    /// Nothing.
    Nothing,
}

/// The readable offsets of all partitions that have some.
pub(crate) fn ranges(
    consumer: &LogConsumer,
    broker: &str,
    topic: &str,
) -> anyhow::Result<BTreeMap<i32, Range<u64>>> {
    let mut ranges = BTreeMap::new();
    for partition in kafka_client::partitions(consumer, broker, topic, REQUEST)? {
        let (start, end) = kafka_client::log_bounds(consumer, topic, partition, REQUEST)?;
        if start < end {
            ranges.insert(partition, start..end);
        }
    }
    Ok(ranges)
}

/// Passes the records of these ranges to `each`, and shows the progress.
pub(crate) fn read(
    consumer: &LogConsumer,
    topic: &str,
    mut ranges: BTreeMap<i32, Range<u64>>,
    mut each: impl FnMut(&BorrowedMessage<'_>) -> anyhow::Result<Next>,
) -> anyhow::Result<()> {
    ranges.retain(|_, range| !range.is_empty());
    let length = |range: &Range<u64>| range.end.saturating_sub(range.start);
    let progress = Progress::new(format!("reading {topic:?}"), ranges.values().map(length).sum());
    assign(consumer, topic, ranges.iter().map(|(partition, range)| (*partition, range.start)))?;
    let mut last_event = Instant::now();
    while !ranges.is_empty() {
        match poll(consumer, topic)? {
            Some(Event::Record(message)) => {
                let (partition, offset) = (message.partition(), message.offset().unsigned_abs());
                let Some(range) = ranges.get_mut(&partition) else { continue };
                let is_last = offset + 1 >= range.end;
                // A range may end with a gap, and the next record lies after it.
                let next = if range.contains(&offset) { each(&message)? } else { Next::Record };
                let read = (offset + 1).min(range.end);
                progress.advance(read.saturating_sub(range.start));
                range.start = range.start.max(read);
                match next {
                    Next::Record if !is_last => {}
                    Next::Record | Next::OtherPartitions => drop(ranges.remove(&partition)),
                    Next::Nothing => return Ok(()),
                }
            }
            Some(Event::End(partition)) => drop(ranges.remove(&partition)),
            Some(Event::Deleted) => {
                bail!("retention deleted records of {topic:?} while they were read; run the command again")
            }
            None if last_event.elapsed() > IDLE_TIMEOUT => {
                bail!("no record or partition end of topic {topic:?} for {IDLE_TIMEOUT:?}")
            }
            None => continue,
        }
        last_event = Instant::now();
    }
    Ok(())
}
