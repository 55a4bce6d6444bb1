//! The dead letters' side: which records a dead-letter topic stands for.

use std::collections::BTreeMap;

use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{ClientConfig, Message};

use super::log;
use super::offsets::OffsetSet;
use crate::cli::VerifyArgs;

/// The headers by which a dead letter names its record, behind the prefix that `KafkaWriter` was given; values are text.
mod header {
    pub(super) const TOPIC: &str = "topic";
    pub(super) const PARTITION: &str = "partition";
    pub(super) const OFFSET: &str = "offset";
    /// Only where a dead letter stands for a range of records.
    pub(super) const LAST_OFFSET: &str = "last_offset";
}

/// What these start with by default: `KafkaWriter`'s own default.
pub(crate) const DEFAULT_PREFIX: &str = "kmr.";

/// The dead letters for one topic.
#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    by_partition: BTreeMap<i32, OffsetSet>,
    /// That stand for a record for which there was one before. They are delivered at least once.
    pub(super) repeated: u64,
    /// Messages of the dead-letter topics that name no record.
    pub(super) nameless: u64,
}

impl DeadLetters {
    /// Reads the dead-letter topics up to where they end now.
    pub(super) fn read(config: &ClientConfig, args: &VerifyArgs) -> anyhow::Result<Self> {
        let mut letters = Self::default();
        for topic in &args.dead_letter_topics {
            log::read_all(config, args, topic, |message| {
                letters.add(&args.kafka.topic, named(message, &args.dead_letter_prefix));
            })?;
        }
        Ok(letters)
    }

    pub(super) fn of(&self, partition: i32) -> Option<&OffsetSet> {
        self.by_partition.get(&partition)
    }

    fn add(&mut self, topic: &str, named: Option<Named>) {
        let Some(named) = named else {
            self.nameless += 1;
            return;
        };
        if named.topic != topic {
            return;
        }
        let set = self.by_partition.entry(named.partition).or_default();
        for offset in named.offset..=named.last_offset {
            self.repeated += u64::from(!set.insert(offset));
        }
    }
}

/// The records that a dead letter names.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    topic: String,
    partition: i32,
    offset: u64,
    last_offset: u64,
}

fn named(message: &BorrowedMessage<'_>, prefix: &str) -> Option<Named> {
    let headers = message.headers()?;
    // The last of a name counts: a record that came from a dead-letter topic itself carries older ones.
    let value = |name: &str| {
        let is_it = |key: &str| key.strip_prefix(prefix).is_some_and(|rest| rest == name);
        let found = headers.iter().filter(|header| is_it(header.key)).last()?;
        std::str::from_utf8(found.value?).ok()
    };
    let offset = value(header::OFFSET)?.parse().ok()?;
    let last_offset = match value(header::LAST_OFFSET) {
        Some(text) => text.parse().ok()?,
        None => offset,
    };
    let (topic, partition) = (value(header::TOPIC)?.to_owned(), value(header::PARTITION)?.parse().ok()?);
    Some(Named { topic, partition, offset, last_offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_other_topics_and_without_names_count_for_nothing() {
        let named = |topic: &str, offset, last_offset| {
            Some(Named { topic: topic.to_owned(), partition: 3, offset, last_offset })
        };
        let mut letters = DeadLetters::default();
        for letter in [named("t", 5, 7), named("other", 9, 9), None, named("t", 7, 8)] {
            letters.add("t", letter);
        }
        let found = letters.of(3).unwrap().within(&(0..64)).iter().collect::<Vec<_>>();
        assert_eq!((found, letters.repeated, letters.nameless), (vec![5, 6, 7, 8], 1, 1));
        assert!(letters.of(0).is_none());
    }
}
