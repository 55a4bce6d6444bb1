//! Bounded runs: where their partitions end, and what must hold when they end by themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::ClusterState;
use crate::commit_metadata::CommitMetadata;
use crate::config::Until;
use crate::consumer::RunReport;
use crate::member::{LogPoint, Start};
use crate::record::TopicPartition;

/// A bounded run without an assignment does not end earlier.
const UNASSIGNED: Duration = Duration::from_secs(60);

/// The end offsets of one consumer. An unbounded one has none.
#[derive(Clone)]
pub(super) struct Bounds {
    until: Option<Until>,
    started: Instant,
    ends: Arc<Mutex<BTreeMap<TopicPartition, i64>>>,
}

impl Bounds {
    pub(super) fn new(until: Option<Until>) -> Self {
        Self { until, started: Instant::now(), ends: Arc::default() }
    }

    pub(super) fn until(&self) -> Option<Until> {
        self.until
    }

    /// The brokers return offsets. The first ones are the ends, and stay the ends.
    pub(super) fn received(&self, offsets: &BTreeMap<TopicPartition, i64>, point: LogPoint) {
        if self.until.is_some_and(|until| until.point() == point) {
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            for (partition, offset) in offsets {
                ends.entry(partition.clone()).or_insert(*offset);
            }
        }
    }

    /// Partitions start. A planned block is rebuilt as a whole, also where it reaches past the end.
    pub(super) fn started(&self, starts: &[Start]) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for start in starts {
            let metadata = start.metadata.as_deref().map(CommitMetadata::parse);
            if let (Some(Ok(CommitMetadata::Plan(plan))), Some(end)) =
                (metadata, ends.get_mut(&start.partition))
            {
                *end = (*end).max(plan.last + 1);
            }
        }
    }

    fn end(&self, partition: &TopicPartition) -> Option<i64> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).get(partition).copied()
    }

    /// No record at the end or after it is delivered.
    pub(super) fn check_delivery(&self, state: &mut ClusterState, partition: &TopicPartition, offset: i64) {
        if let Some(end) = self.end(partition).filter(|end| offset >= *end) {
            let what = format!("{partition} {offset} is delivered, and the run ends at {end}");
            state.violate("a bounded run stops at its ends", what);
        }
    }

    /// The consumer has ended without a stop request: all records below the ends of its partitions
    /// are finished and committed.
    pub(super) fn check_completion(&self, state: &mut ClusterState, report: &RunReport) {
        let rule = "a bounded run completes its partitions";
        if report.partitions.is_empty() && self.started.elapsed() < UNASSIGNED {
            state.violate(rule, "a run without partitions has ended at once".to_owned());
        }
        for partition in report.partitions.keys() {
            let Some(end) = self.end(partition) else {
                state.violate(rule, format!("the end of {partition} was never received"));
                continue;
            };
            let committed = state.committed.get(partition).map_or(0, |(offset, _)| *offset);
            let required =
                state.log.get(partition).and_then(|log| log.last_before(end)).map_or(0, |last| last + 1);
            if let Some(first) = state.oracle.first_unfinished_of(partition).filter(|first| *first < end) {
                state.violate(rule, format!("{partition} {first} is not finished, and the end is {end}"));
            } else if committed < required && !state.was_sought {
                let what = format!("{partition} is committed at {committed}, and its end is {end}");
                state.violate(rule, what);
            }
        }
    }
}
