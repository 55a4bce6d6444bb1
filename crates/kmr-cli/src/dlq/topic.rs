//! The dead-letter topic: opens it, and reads the dead letters that a filter selects.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Context;
use kmr_cli_support::numbers::counted;
use rdkafka::consumer::Consumer;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::TopicArgs;
use super::filter::Filter;
use crate::dead_letter::{self, DeadLetter};
use crate::kafka_client;
use crate::topic_reader::{self, LogConsumer, Next, REQUEST};

/// How many messages that are no dead letters are named.
const NAMED: usize = 3;

/// The dead-letter topic.
pub(super) struct DeadLetterTopic {
    pub(super) consumer: LogConsumer,
    pub(super) name: String,
    pub(super) prefix: String,
    /// The readable offsets of partitions that have some.
    pub(super) ranges: BTreeMap<i32, Range<u64>>,
}

impl DeadLetterTopic {
    /// Reads the bounds of its partitions. `group` is that of committed offsets.
    ///
    /// # Errors
    ///
    /// The broker is not reachable, or the topic does not exist or may not be read.
    pub(super) fn open(args: &TopicArgs, group: &str) -> anyhow::Result<Self> {
        let mut config = kafka_client::config(&args.brokers, "kmr-dlq")?;
        topic_reader::configure(&mut config, group);
        let consumer = kafka_client::consumer(&config)?;
        let name = args.dead_letter_topic.clone();
        let ranges = topic_reader::ranges(&consumer, &args.brokers.broker, &name)?;
        Ok(Self { consumer, name, prefix: args.dead_letter_prefix.clone(), ranges })
    }

    /// Passes the selected dead letters to `each`, up to the end that the topic had when it was
    /// opened. Returns the messages that are none.
    pub(super) fn read(
        &self,
        filter: &Filter,
        mut each: impl FnMut(DeadLetter, &BorrowedMessage<'_>),
    ) -> anyhow::Result<Strangers> {
        let mut strangers = Strangers::default();
        let mut ranges = self.ranges.clone();
        ranges.retain(|partition, _| filter.reads(*partition));
        if let Some(since) = &filter.since {
            self.start_at(&mut ranges, since.millis)?;
        }
        topic_reader::read(&self.consumer, &self.name, ranges, |message| {
            match dead_letter::read(message, &self.prefix) {
                Ok(dead_letter) if filter.selects(&dead_letter) => each(dead_letter, message),
                Ok(_) => {}
                Err(why) => strangers.add(message.partition(), message.offset(), &why),
            }
            Ok(Next::Record)
        })?;
        Ok(strangers)
    }

    /// Starts the ranges at the first message of this time or later: all before it are earlier.
    fn start_at(&self, ranges: &mut BTreeMap<i32, Range<u64>>, millis: i64) -> anyhow::Result<()> {
        if ranges.is_empty() {
            return Ok(());
        }
        let mut times = TopicPartitionList::new();
        for partition in ranges.keys() {
            times.add_partition_offset(&self.name, *partition, Offset::Offset(millis.max(0)))?;
        }
        let found = self.consumer.offsets_for_times(times, REQUEST);
        let found = found.with_context(|| format!("reading the offsets of a time in {:?}", self.name))?;
        for element in found.elements() {
            let Some(range) = ranges.get_mut(&element.partition()) else { continue };
            match (element.error(), element.offset()) {
                (Ok(()), Offset::Offset(offset)) => range.start = range.start.max(offset.unsigned_abs()),
                // No message is that late.
                (Ok(()), Offset::End) => range.start = range.end,
                // The filter finds them.
                _ => {}
            }
        }
        ranges.retain(|_, range| range.start < range.end);
        Ok(())
    }
}

/// Messages that are no dead letters of kmr.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Strangers {
    pub(super) count: u64,
    /// Position and reason of the first ones.
    named: Vec<String>,
}

impl Strangers {
    pub(super) fn add(&mut self, partition: i32, offset: i64, why: &str) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(format!("{partition}/{offset}: {why}"));
        }
    }

    /// A note for people, if there are any.
    pub(super) fn note(&self) -> Option<String> {
        (self.count > 0).then(|| {
            let more = if self.count > self.named.len() as u64 { ", …" } else { "" };
            let are = if self.count == 1 { "is no dead letter" } else { "are no dead letters" };
            format!(
                "{} {are} of kmr, or --dead-letter-prefix is wrong ({}{more})",
                counted(self.count, "message"),
                self.named.join("; ")
            )
        })
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({ "count": self.count, "first": self.named })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_others_are_counted_and_the_first_are_named() {
        let mut strangers = Strangers::default();
        assert_eq!(strangers.note(), None);
        for offset in 0..5 {
            strangers.add(1, offset, "it has no header kmr.topic");
        }
        let note = strangers.note().unwrap();
        assert!(
            note.starts_with("5 messages are no dead letters") && note.contains("1/2: it has no"),
            "{note}"
        );
        assert!(!note.contains("1/3") && note.contains("; …") | note.contains(", …"), "{note}");
    }
}
