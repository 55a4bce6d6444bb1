//! The log's side: where partitions begin and end, what is committed, and which offsets hold a record.
//!
//! Reading joins no group and commits nothing: partitions are assigned by hand. Isolation is `read_committed`, so that what
//! comes is what a consumer would have had to deliver.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::audit::Bounds;
use super::offsets::Bits;
use crate::cli::VerifyArgs;
use crate::kafka_client::{self, Quiet};

/// For one request.
const REQUEST: Duration = Duration::from_secs(10);
/// Without a record, an end or an error for this long, the broker is given up.
const SILENCE: Duration = Duration::from_secs(60);

pub(super) type LogConsumer = BaseConsumer<Quiet>;

/// The settings of every consumer of the audit.
pub(super) fn config(args: &VerifyArgs) -> anyhow::Result<ClientConfig> {
    let mut config = kafka_client::config(&args.kafka, "kmr-demo-verify")?;
    for (name, value) in [
        ("group.id", args.group.as_str()),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "true"),
        // An offset that retention has taken must be seen, not passed over.
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_committed"),
        // Payload alone; small records take three times as much. For each of the workers.
        ("queued.max.messages.kbytes", "4096"),
        ("fetch.queue.backoff.ms", "5"),
    ] {
        config.set(name, value);
    }
    config.set_log_level(RDKafkaLogLevel::Info);
    Ok(config)
}

/// Bounds of every partition. What is committed is read first: what the table then lacks below it was lost.
pub(super) fn bounds(config: &ClientConfig, args: &VerifyArgs) -> anyhow::Result<BTreeMap<i32, Bounds>> {
    let (consumer, topic) = (kafka_client::consumer(config)?, args.kafka.topic.as_str());
    let partitions = kafka_client::partitions(&consumer, &args.kafka.broker, topic, REQUEST)?;
    let committed = kafka_client::committed(&consumer, topic, &partitions, &args.group, REQUEST)?;
    let ask = |partition: i32| {
        let (start, end) = kafka_client::watermarks(&consumer, topic, partition, REQUEST)?;
        Ok((partition, Bounds { start, end, committed: committed.get(&partition).copied() }))
    };
    partitions.into_iter().map(ask).collect()
}

/// Whether records of the topic may vanish one by one. `None`: the broker does not say.
pub(super) async fn is_compacted(config: &ClientConfig, topic: &str) -> Option<bool> {
    let admin: AdminClient<DefaultClientContext> = config.create().ok()?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST));
    let answers = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await.ok()?;
    let resource = answers.into_iter().next()?.ok()?;
    Some(resource.get("cleanup.policy")?.value.as_deref()?.contains("compact"))
}

/// How far a window was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// All of it.
    Whole,
    /// Nothing: retention has taken what was next. The log begins here now.
    BeginsAt(u64),
}

/// Reads partitions one after the other, each window by window.
pub(super) struct LogReader {
    consumer: LogConsumer,
    topic: String,
    partition: i32,
    /// The last record that was read; it may lie behind the last window.
    ahead: Option<u64>,
    ended: bool,
}

impl LogReader {
    pub(super) fn new(config: &ClientConfig, topic: &str) -> anyhow::Result<Self> {
        let consumer = kafka_client::consumer(config)?;
        Ok(Self { consumer, topic: topic.to_owned(), partition: -1, ahead: None, ended: false })
    }

    /// Goes to an offset of a partition.
    pub(super) fn start(&mut self, partition: i32, offset: u64) -> anyhow::Result<()> {
        (self.partition, self.ahead, self.ended) = (partition, None, false);
        assign(&self.consumer, &self.topic, [(partition, offset)])
    }

    /// Notes which offsets of a window hold a record. Windows are read in ascending order.
    pub(super) fn read(&mut self, records: &mut Bits) -> anyhow::Result<Read> {
        let end = records.range().end;
        let mut heard = Instant::now();
        loop {
            // Behind its last record a window has to be waited for only where it ends with a gap.
            if self.ended || self.ahead.is_some_and(|offset| offset + 1 >= end) {
                if let Some(offset) = self.ahead {
                    records.insert(offset);
                }
                return Ok(Read::Whole);
            }
            if let Some(offset) = self.ahead.take() {
                records.insert(offset);
            }
            match next(&self.consumer, &self.topic)? {
                Some(Event::Record(message)) if message.partition() == self.partition => {
                    self.ahead = Some(message.offset().unsigned_abs());
                }
                Some(Event::End(partition)) if partition == self.partition => self.ended = true,
                // Of a partition that was read before.
                Some(Event::Record(_) | Event::End(_)) => continue,
                Some(Event::Gone) => {
                    let (start, _) =
                        kafka_client::watermarks(&self.consumer, &self.topic, self.partition, REQUEST)?;
                    self.start(self.partition, start)?;
                    return Ok(Read::BeginsAt(start));
                }
                None if heard.elapsed() > SILENCE => {
                    bail!("nothing came from {}/{} for {SILENCE:?}", self.topic, self.partition)
                }
                None => continue,
            }
            heard = Instant::now();
        }
    }
}

/// What a consumer hands out.
enum Event<'a> {
    Record(BorrowedMessage<'a>),
    End(i32),
    /// The next offset is not in the log any more.
    Gone,
}

fn next<'a>(consumer: &'a LogConsumer, topic: &str) -> anyhow::Result<Option<Event<'a>>> {
    match consumer.poll(Duration::from_millis(200)) {
        None => Ok(None),
        Some(Ok(message)) => Ok(Some(Event::Record(message))),
        Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Some(Event::End(partition))),
        Some(Err(KafkaError::MessageConsumption(
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
        ))) => Ok(Some(Event::Gone)),
        // librdkafka goes on by itself.
        Some(Err(error)) if is_passing(&error) => Ok(None),
        Some(Err(error)) => Err(anyhow!(error).context(format!("reading topic {topic:?}"))),
    }
}

fn is_passing(error: &KafkaError) -> bool {
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

fn assign(
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

/// Hands every record of a topic to `each`, up to where its partitions end now.
pub(super) fn read_all(
    config: &ClientConfig,
    args: &VerifyArgs,
    topic: &str,
    mut each: impl FnMut(&BorrowedMessage<'_>),
) -> anyhow::Result<()> {
    let consumer = kafka_client::consumer(config)?;
    let mut ends: BTreeMap<i32, Range<u64>> = BTreeMap::new();
    for partition in kafka_client::partitions(&consumer, &args.kafka.broker, topic, REQUEST)? {
        let (start, end) = kafka_client::watermarks(&consumer, topic, partition, REQUEST)?;
        if start < end {
            ends.insert(partition, start..end);
        }
    }
    assign(&consumer, topic, ends.iter().map(|(partition, range)| (*partition, range.start)))?;
    let mut heard = Instant::now();
    while !ends.is_empty() {
        match next(&consumer, topic)? {
            Some(Event::Record(message)) => {
                each(&message);
                let (partition, offset) = (message.partition(), message.offset().unsigned_abs());
                ends.retain(|other, range| *other != partition || offset + 1 < range.end);
            }
            Some(Event::End(partition)) => drop(ends.remove(&partition)),
            Some(Event::Gone) => {
                bail!("retention took records of {topic:?} while they were read; start again")
            }
            None if heard.elapsed() > SILENCE => bail!("nothing came from topic {topic:?} for {SILENCE:?}"),
            None => continue,
        }
        heard = Instant::now();
    }
    Ok(())
}
