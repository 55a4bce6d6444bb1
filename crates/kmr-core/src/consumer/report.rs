//! The report of a consumer that ended without an error.

use std::collections::BTreeMap;

use crate::graph::coordinator::{ShutdownOutcome, partition_reports};
use crate::partition_report::PartitionReport;
use crate::record::TopicPartition;
use crate::stats::Stats;

/// How a consumer ended after a stop request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunReport {
    /// The consumer's counters at its end.
    pub stats: Stats,
    /// The partitions that it owned at the end.
    pub partitions: BTreeMap<TopicPartition, PartitionReport>,
}

impl RunReport {
    pub(super) fn new(ending: &ShutdownOutcome, stats: Stats) -> Self {
        Self { stats, partitions: partition_reports(&ending.settled) }
    }
}
