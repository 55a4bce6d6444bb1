//! The records that the dead letters of one or more topics name.

use std::collections::BTreeMap;

use kmr_core::__private::message_headers;
use rdkafka::ClientConfig;

use super::args::VerifyArgs;
use super::offset_sets::OffsetSet;
use super::topic_log;
use crate::dead_letter::Source;

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
                let named = Source::of(&message_headers(message), &args.dead_letter_prefix);
                dead_letters.add(&args.kafka.topic, named);
            })?;
        }
        Ok(dead_letters)
    }

    /// Offsets of a partition's dead letters.
    pub(super) fn of(&self, partition: i32) -> Option<&OffsetSet> {
        self.by_partition.get(&partition)
    }

    fn add(&mut self, topic: &str, named: Option<Source>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_of_other_topics_and_without_names_are_not_counted() {
        let named = |topic: &str, offset, last_offset| {
            Some(Source { topic: topic.to_owned(), partition: 3, offset, last_offset })
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
