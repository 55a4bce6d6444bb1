//! The records that the dead letters of one or more topics name.

use std::collections::BTreeMap;

use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{ClientConfig, Message};

use super::args::VerifyArgs;
use super::offset_sets::OffsetSet;
use super::topic_log;

/// Headers that name a dead letter's record, without `KafkaWriter`'s prefix. Values are text.
mod header {
    pub(super) const TOPIC: &str = "topic";
    pub(super) const PARTITION: &str = "partition";
    pub(super) const OFFSET: &str = "offset";
    /// Present only if a dead letter covers a range of records.
    pub(super) const LAST_OFFSET: &str = "last_offset";
}

/// The most offsets that one dead letter covers. Headers that name more are not kmr's, and would
/// be counted for hours.
const MOST_OFFSETS: u64 = 1 << 24;

/// The dead letters of one topic's records.
#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    by_partition: BTreeMap<i32, OffsetSet>,
    /// Dead letters for a record that had one. They are delivered at least once.
    pub(super) repeated: u64,
    /// Messages without headers that name a record.
    pub(super) nameless: u64,
}

impl DeadLetters {
    /// Reads the dead-letter topics up to their current end.
    pub(super) fn read(config: &ClientConfig, args: &VerifyArgs) -> anyhow::Result<Self> {
        let mut dead_letters = Self::default();
        for topic in &args.dead_letter_topics {
            topic_log::read_all(config, args, topic, |message| {
                dead_letters.add(&args.kafka.topic, named(message, &args.dead_letter_prefix));
            })?;
        }
        Ok(dead_letters)
    }

    /// Offsets of a partition's dead letters.
    pub(super) fn of(&self, partition: i32) -> Option<&OffsetSet> {
        self.by_partition.get(&partition)
    }

    fn add(&mut self, topic: &str, named: Option<NamedRecords>) {
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
struct NamedRecords {
    topic: String,
    partition: i32,
    offset: u64,
    last_offset: u64,
}

impl NamedRecords {
    fn is_plausible(&self) -> bool {
        self.last_offset.checked_sub(self.offset).is_some_and(|more| more < MOST_OFFSETS)
    }
}

fn named(message: &BorrowedMessage<'_>, prefix: &str) -> Option<NamedRecords> {
    let headers = message.headers()?;
    // The last header of a name counts: a record of a dead-letter topic carries older ones.
    let value = |name: &str| {
        let matches = |key: &str| key.strip_prefix(prefix).is_some_and(|rest| rest == name);
        let found = headers.iter().filter(|header| matches(header.key)).last()?;
        std::str::from_utf8(found.value?).ok()
    };
    let offset = value(header::OFFSET)?.parse().ok()?;
    let last_offset = match value(header::LAST_OFFSET) {
        Some(text) => text.parse().ok()?,
        None => offset,
    };
    let (topic, partition) = (value(header::TOPIC)?.to_owned(), value(header::PARTITION)?.parse().ok()?);
    let named = NamedRecords { topic, partition, offset, last_offset };
    named.is_plausible().then_some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_no_dead_letter_covers_name_no_record() {
        let is_plausible = |offset, last_offset| {
            NamedRecords { topic: String::new(), partition: 0, offset, last_offset }.is_plausible()
        };
        assert!(is_plausible(7, 7) && is_plausible(0, MOST_OFFSETS - 1));
        assert!(!is_plausible(7, 6) && !is_plausible(0, MOST_OFFSETS) && !is_plausible(0, u64::MAX));
    }

    #[test]
    fn dead_letters_of_other_topics_and_without_names_are_not_counted() {
        let named = |topic: &str, offset, last_offset| {
            Some(NamedRecords { topic: topic.to_owned(), partition: 3, offset, last_offset })
        };
        let mut dead_letters = DeadLetters::default();
        for record in [named("t", 5, 7), named("other", 9, 9), None, named("t", 7, 8)] {
            dead_letters.add("t", record);
        }
        let found = dead_letters.of(3).unwrap().within(&(0..64)).iter().collect::<Vec<_>>();
        assert_eq!((found, dead_letters.repeated, dead_letters.nameless), (vec![5, 6, 7, 8], 1, 1));
        assert!(dead_letters.of(0).is_none());
    }
}
