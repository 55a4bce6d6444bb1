//! Counters of a running consumer, and the snapshots for users.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::metrics::Recorder;
use crate::record::TopicPartition;
use crate::stage::Stage;

/// The counters of all tasks. Each costs one atomic addition per batch, not per record.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Records what no snapshot has: durations, causes, outcomes.
    pub(crate) metrics: Recorder,
    records: AtomicU64,
    bytes: AtomicU64,
    dead_letters: AtomicU64,
    rows: Mutex<BTreeMap<String, u64>>,
    commits: AtomicU64,
    rebalances: AtomicU64,
    reconnects: AtomicU64,
    resets: AtomicU64,
    committed: Mutex<BTreeMap<TopicPartition, i64>>,
}

impl Counters {
    pub(crate) fn with_metrics(metrics: Recorder) -> Self {
        Self { metrics, ..Self::default() }
    }

    pub(crate) fn mapped(&self, records: usize, bytes: usize) {
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn dead_letters(&self, count: usize) {
        self.dead_letters.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn delivered(&self, stage: &Stage, rows: usize) {
        let mut delivered = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        *delivered.entry(stage.name().to_owned()).or_default() += rows as u64;
    }

    pub(crate) fn rebalanced(&self) {
        self.rebalances.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reconnected(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn commit_requested(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, partition: &TopicPartition, offset: i64) {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).insert(partition.clone(), offset);
    }

    pub(crate) fn snapshot(&self, bytes_held: u64) -> Stats {
        Stats {
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            dead_letters: self.dead_letters.load(Ordering::Relaxed),
            rows: self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            commits: self.commits.load(Ordering::Relaxed),
            rebalances: self.rebalances.load(Ordering::Relaxed),
            reconnects: self.reconnects.load(Ordering::Relaxed),
            resets: self.resets.load(Ordering::Relaxed),
            bytes_held,
            committed: self.committed.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// The counters of a consumer since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Records that left the map stages: mapped, skipped or failed.
    pub records: u64,
    /// Bytes of their keys and payloads.
    pub bytes: u64,
    /// Records sent to `reduce_err`.
    pub dead_letters: u64,
    /// Rows delivered, by reduce stage (`reduce 1`, `reduce_err`).
    pub rows: BTreeMap<String, u64>,
    /// Commit requests sent.
    pub commits: u64,
    /// Rebalances answered.
    pub rebalances: u64,
    /// Failed Kafka clients that were replaced.
    pub reconnects: u64,
    /// Starting positions that a policy chose, because nothing was committed for the partition or
    /// its offset was no longer in the log.
    pub resets: u64,
    /// Bytes of the memory budget that are in use now.
    pub bytes_held: u64,
    /// The offset that this consumer committed last, by partition. Includes partitions that it has
    /// released.
    pub committed: BTreeMap<TopicPartition, i64>,
}
