//! The records of the topic that `kmr dlq replay` has sent: which records they repeat.

use std::collections::BTreeMap;

use super::offset_sets::OffsetSet;
use crate::dead_letter::Source;

/// The replays in the checked part of the topic.
#[derive(Debug, Default)]
pub(super) struct Replays {
    by_partition: BTreeMap<i32, OffsetSet>,
    /// Number of replays.
    pub(super) count: u64,
    /// Replays of a record that had one.
    pub(super) repeated: u64,
}

impl Replays {
    /// Adds records that repeat these ones.
    pub(super) fn add(&mut self, repeated: impl IntoIterator<Item = Source>) {
        for source in repeated {
            self.count += 1;
            let is_new = self.by_partition.entry(source.partition).or_default().insert(source.offset);
            self.repeated += u64::from(!is_new);
        }
    }

    /// The records of a partition that were repeated.
    pub(super) fn of(&self, partition: i32) -> Option<&OffsetSet> {
        self.by_partition.get(&partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_was_replayed_twice_is_counted() {
        let source = |offset| Source { topic: "t".to_owned(), partition: 3, offset, last_offset: offset };
        let mut replays = Replays::default();
        replays.add([source(5), source(7)]);
        replays.add([source(5)]);
        assert_eq!((replays.count, replays.repeated), (3, 1));
        assert_eq!(replays.of(3).unwrap().within(&(0..64)).iter().collect::<Vec<_>>(), [5, 7]);
        assert!(replays.of(0).is_none());
    }
}
