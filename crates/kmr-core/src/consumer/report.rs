//! How a consumer ended that was told to stop.

use std::collections::BTreeMap;

use crate::graph::committer::Settled;
use crate::graph::coordinator::Ending;
use crate::record::TopicPartition;
use crate::stats::Stats;

/// How a consumer ended that was told to stop.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// What it did.
    pub stats: Stats,
    /// The partitions that it owned at the end.
    pub partitions: BTreeMap<TopicPartition, PartitionEnd>,
}

/// How one partition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionEnd {
    /// The offset committed last, if this consumer committed any.
    pub committed: Option<i64>,
    /// The lowest offset that was read and is not finished: what the deadline or a second signal cut off; or rows that a reducer
    /// dropped at shutdown, as it was told to.
    pub unfinished_from: Option<i64>,
}

/// How these partitions ended.
pub(crate) fn ends(settled: &[Settled]) -> BTreeMap<TopicPartition, PartitionEnd> {
    let end = |s: &Settled| {
        let end = PartitionEnd { committed: s.committed, unfinished_from: s.unfinished_from };
        (s.partition.clone(), end)
    };
    settled.iter().map(end).collect()
}

impl Report {
    pub(super) fn new(ending: &Ending, stats: Stats) -> Self {
        Self { stats, partitions: ends(&ending.settled) }
    }
}
