//! The topic's log: bounds of partitions, committed offsets, and the offsets that have a record.
//!
//! Reading assigns partitions manually, so it joins no group and commits nothing. Isolation is
//! `read_committed`: these are the records that a consumer has to deliver.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use anyhow::bail;
use kmr_cli_support::kafka_access::create_client;
use kmr_core::__private::message_headers;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message};

use super::args::VerifyArgs;
use super::offset_sets::Bits;
use super::partition_account::Bounds;
use crate::dead_letter::Source;
use crate::kafka_client;
use crate::topic_reader::{self, Event, IDLE_TIMEOUT, LogConsumer, Next, REQUEST, assign, poll};

/// The settings of every consumer of the audit.
pub(super) fn config(args: &VerifyArgs) -> anyhow::Result<ClientConfig> {
    let mut config = kafka_client::config(&args.kafka, "kmr-verify")?;
    topic_reader::configure(&mut config, &args.group);
    Ok(config)
}

/// The bounds of all partitions.
pub(super) struct TopicBounds {
    pub(super) bounds: BTreeMap<i32, Bounds>,
    /// Offsets that no consumer can read before an open transaction ends, by partition.
    pub(super) waiting: BTreeMap<i32, Range<u64>>,
}

/// Bounds of every partition. The committed offsets are read first: a row that the table lacks
/// below them afterwards was lost.
pub(super) fn bounds(config: &ClientConfig, args: &VerifyArgs) -> anyhow::Result<TopicBounds> {
    let (consumer, topic) = (kafka_client::consumer(config)?, args.kafka.topic.as_str());
    let mut uncommitted = config.clone();
    uncommitted.set("isolation.level", "read_uncommitted");
    let uncommitted = kafka_client::consumer(&uncommitted)?;
    let partitions = kafka_client::partitions(&consumer, &args.kafka.broker, topic, REQUEST)?;
    let committed = kafka_client::committed(&consumer, topic, &partitions, &args.group, REQUEST)?;
    let mut found = TopicBounds { bounds: BTreeMap::new(), waiting: BTreeMap::new() };
    for partition in partitions {
        // The end of the log comes first, so that records that arrive meanwhile do not look like a
        // transaction.
        let (_, log_end) = kafka_client::log_bounds(&uncommitted, topic, partition, REQUEST)?;
        let (start, end) = kafka_client::log_bounds(&consumer, topic, partition, REQUEST)?;
        let bounds = Bounds { start, end, committed: committed.get(&partition).copied() };
        found.bounds.insert(partition, bounds);
        if end < log_end {
            found.waiting.insert(partition, end..log_end);
        }
    }
    Ok(found)
}

/// Whether compaction may remove single records of the topic. `None`: the broker did not report it.
pub(super) async fn is_compacted(config: &ClientConfig, topic: &str) -> Option<bool> {
    let admin: AdminClient<DefaultClientContext> = create_client(config, DefaultClientContext).ok()?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST));
    let responses = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await.ok()?;
    let resource = responses.into_iter().next()?.ok()?;
    Some(resource.get("cleanup.policy")?.value.as_deref()?.contains("compact"))
}

/// How far a window was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// To its end.
    Whole,
    /// Not further: retention has deleted the next records, and the log starts at this offset now.
    StartsAt(u64),
}

/// Reads one partition after another, each window by window.
pub(super) struct LogReader {
    consumer: LogConsumer,
    topic: String,
    /// Prefix of the headers that a replay has.
    prefix: String,
    partition: i32,
    /// The last record that was read; it may lie after the last window.
    last_read: Option<u64>,
    ended: bool,
    /// Records of the topic that records read so far repeat.
    replayed: Vec<Source>,
}

impl LogReader {
    pub(super) fn new(config: &ClientConfig, args: &VerifyArgs) -> anyhow::Result<Self> {
        Ok(Self {
            consumer: kafka_client::consumer(config)?,
            topic: args.kafka.topic.clone(),
            prefix: args.dead_letter_prefix.clone(),
            partition: -1,
            last_read: None,
            ended: false,
            replayed: Vec::new(),
        })
    }

    /// The records that the records read since the last call repeat.
    pub(super) fn take_replayed(&mut self) -> Vec<Source> {
        std::mem::take(&mut self.replayed)
    }

    /// Seeks to an offset of a partition.
    pub(super) fn seek(&mut self, partition: i32, offset: u64) -> anyhow::Result<()> {
        (self.partition, self.last_read, self.ended) = (partition, None, false);
        assign(&self.consumer, &self.topic, [(partition, offset)])
    }

    /// Adds the offsets of a window that have a record. Windows are read in ascending order.
    pub(super) fn read(&mut self, records: &mut Bits) -> anyhow::Result<Progress> {
        let end = records.range().end;
        let mut last_event = Instant::now();
        loop {
            // After the last record, a range needs waiting only if it ends with a gap.
            if self.ended || self.last_read.is_some_and(|offset| offset + 1 >= end) {
                if let Some(offset) = self.last_read {
                    records.insert(offset);
                }
                return Ok(Progress::Whole);
            }
            if let Some(offset) = self.last_read.take() {
                records.insert(offset);
            }
            match poll(&self.consumer, &self.topic)? {
                Some(Event::Record(message)) if message.partition() == self.partition => {
                    self.last_read = Some(message.offset().unsigned_abs());
                    if message.headers().is_some() {
                        let repeated = Source::of_replay(&message_headers(&message), &self.prefix);
                        self.replayed.extend(repeated.filter(|source| source.topic == self.topic));
                    }
                }
                Some(Event::End(partition)) if partition == self.partition => self.ended = true,
                // Of an earlier partition.
                Some(Event::Record(_) | Event::End(_)) => continue,
                Some(Event::Deleted) => {
                    let (start, _) =
                        kafka_client::log_bounds(&self.consumer, &self.topic, self.partition, REQUEST)?;
                    self.seek(self.partition, start)?;
                    return Ok(Progress::StartsAt(start));
                }
                None if last_event.elapsed() > IDLE_TIMEOUT => {
                    bail!(
                        "no record or partition end of {}/{} for {IDLE_TIMEOUT:?}",
                        self.topic,
                        self.partition
                    )
                }
                None => continue,
            }
            last_event = Instant::now();
        }
    }
}

/// Passes every record of a topic to `each`, up to the current ends of its partitions.
pub(super) fn read_all(
    config: &ClientConfig,
    args: &VerifyArgs,
    topic: &str,
    mut each: impl FnMut(&BorrowedMessage<'_>),
) -> anyhow::Result<()> {
    let consumer = kafka_client::consumer(config)?;
    let ranges = topic_reader::ranges(&consumer, &args.kafka.broker, topic)?;
    topic_reader::read(&consumer, topic, ranges, |message| {
        each(message);
        Ok(Next::Record)
    })
}
