//! The traits between the graph and a Kafka client: a group member and its fetch queue.
//!
//! The real client and the simulated cluster implement them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Error;
use crate::log_id::LogAt;
use crate::record::{OwnedRecord, Record, TopicPartition};
use crate::util::future::BoxFuture;

/// Memory of a fetched record besides its key, payload and headers, measured with librdkafka
/// 2.12.1.
pub(crate) const RECORD_OVERHEAD: usize = 340;

/// Records of one partition, in offset order.
pub(crate) trait RecordBatch: Send {
    /// Number of records.
    fn len(&self) -> usize;
    /// The offset of the record at `index`.
    fn offset(&self, index: usize) -> i64;
    /// The record at `index`, which is below `len`.
    fn record(&self, index: usize) -> Record<'_>;
}

/// An item of the member's fetch queue.
pub(crate) enum Fetched {
    /// Records of one partition.
    Records {
        topic: Arc<str>,
        partition: i32,
        /// Bytes to charge to the memory budget.
        bytes: usize,
        batch: Box<dyn RecordBatch>,
    },
    /// Everything below `offset`, the end of the log at that time, was returned by poll. Reported
    /// only if the client was configured for it. May be repeated after a pause or a rebalance.
    End { topic: Arc<str>, partition: i32, offset: i64 },
    /// The partition cannot be read, or can no longer be read.
    Failed { topic: Arc<str>, partition: i32, failure: PartitionFailure },
}

/// Why a partition cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PartitionFailure {
    /// The offset is not in the log, or no longer in it.
    OutOfRange { offset: i64 },
    /// The log ends before `offset`, the next one to read. So records that were read are no longer
    /// in it, and other records may have their offsets.
    Truncated { offset: i64, reason: String },
    /// The principal is not authorized to read the topic.
    Unauthorized,
    /// It may be temporary, and fetching continues at the same offset. The topic or the partition
    /// does not exist, and then a rebalance will revoke it. Or the broker returned an error.
    Unavailable(String),
    /// The batch at this offset cannot be decoded or fails its checksum, or the broker cannot read
    /// it.
    Unreadable { offset: i64, reason: String },
}

/// The member's fetch queue. It serves all partitions to one reader.
pub(crate) trait FetchQueue: Send + 'static {
    /// Takes items out of the queue, with at most about `max_records` records. Never blocks.
    ///
    /// `None`: the queue was empty. An empty list: items were taken, and none of them concerns a
    /// current assignment. The queue may hold more, so the caller has to poll again.
    fn poll(&mut self, max_records: usize) -> Option<Vec<Fetched>>;

    /// Resolves when items may have arrived since the last `poll` that returned `None`. It does not
    /// resolve for items that were in the queue before. Cancel safe.
    fn readable(&self) -> BoxFuture<'_, ()>;
}

/// How the group rebalances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RebalanceProtocol {
    /// All partitions are revoked, then all are assigned.
    Eager,
    /// Only partitions that move are revoked: cooperative-sticky and KIP-848.
    Cooperative,
}

/// A rebalance. It must be answered once, under its id: current answer (R5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rebalance {
    pub(crate) id: u64,
    pub(crate) protocol: RebalanceProtocol,
    pub(crate) change: Change,
    pub(crate) partitions: Vec<TopicPartition>,
}

/// The effect of a rebalance on its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Assign,
    Revoke,
    /// The group has taken them away already, and another member may own them. They must not be
    /// committed: lost means uncommitted (C5).
    Lose,
}

impl Change {
    /// Its name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Change::Assign => "assign",
            Change::Revoke => "revoke",
            Change::Lose => "lose",
        }
    }
}

/// An event that a member reports.
#[derive(Debug)]
pub(crate) enum MemberEvent {
    Rebalance(Rebalance),
    /// The client has failed permanently.
    Fatal(Error),
}

/// The starting position of an assigned partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) partition: TopicPartition,
    /// `None`: the lowest offset in the log.
    pub(crate) offset: Option<i64>,
    /// The group has no committed offset, so the start policy chose this one. It must be committed,
    /// or a restart could choose another.
    pub(crate) chosen: bool,
    /// The metadata that is committed with the offset: metadata in force (C7).
    pub(crate) metadata: Option<Arc<str>>,
    /// The identity of the log. Only exactly-once mode needs it, and only then is it set.
    pub(crate) log: Option<LogAt>,
}

/// A place in the log of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogPoint {
    /// The lowest offset in the log.
    Low,
    /// The offset after the last record.
    End,
    /// The first record with this timestamp or a later one, in milliseconds since the Unix epoch.
    /// Without such a record, the end.
    Time(i64),
}

/// How far a partition's log reaches, and how far the client has fetched it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogReach {
    /// The offset after the last record that the client may read. It may be a transaction marker.
    pub(crate) end: i64,
    /// No record below this offset is still to be returned by poll. It is at least the position
    /// that the question named.
    pub(crate) fetched: i64,
}

/// The leader of a partition. It does not respond to requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SilentLeader {
    Broker {
        id: i32,
        /// `HOST:PORT`, as the broker advertises it.
        address: Arc<str>,
    },
    /// The brokers name no leader, or one that is not in their list.
    Unknown,
}

impl fmt::Display for SilentLeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SilentLeader::Broker { id, address } => write!(f, "{address} (broker {id})"),
            SilentLeader::Unknown => f.write_str("unknown"),
        }
    }
}

/// How far logs reach, or the leaders that do not respond.
pub(crate) type LogReaches = BTreeMap<TopicPartition, Result<LogReach, SilentLeader>>;

/// An offset to commit: everything below it is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OffsetCommit {
    pub(crate) partition: TopicPartition,
    pub(crate) offset: i64,
    /// The metadata in force (C7). A commit without it would erase it.
    pub(crate) metadata: Option<Arc<str>>,
}

/// The group coordinator's response for one offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommitOutcome {
    Committed,
    /// The broker no longer counts this member as the owner: an event and not an error. See one
    /// committer (C4).
    NotOwned(String),
    /// The group has removed the member since the partition was assigned to it, and the client has
    /// not reported that. Nothing was sent: another member may have committed further.
    Removed(String),
    /// The topic no longer exists, so no member can commit for it.
    Gone(String),
    /// A retry may succeed.
    Retryable(String),
    /// A retry cannot succeed.
    Failed(String),
}

impl CommitOutcome {
    /// Its name in metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            CommitOutcome::Committed => "committed",
            CommitOutcome::NotOwned(_) => "not_owned",
            CommitOutcome::Removed(_) => "removed",
            CommitOutcome::Gone(_) => "gone",
            CommitOutcome::Retryable(_) => "retryable",
            CommitOutcome::Failed(_) => "failed",
        }
    }

    /// Why the offset is not committed. `None`: it is committed.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            CommitOutcome::Committed => None,
            CommitOutcome::NotOwned(reason)
            | CommitOutcome::Removed(reason)
            | CommitOutcome::Gone(reason)
            | CommitOutcome::Retryable(reason)
            | CommitOutcome::Failed(reason) => Some(reason),
        }
    }
}

/// Called between two assignments: from then on the fetch queue returns no record of the earlier
/// one, and none of the new one yet. If a record of the earlier assignment were taken for the first
/// of the new one, the records below it would be skipped. Takes the starting positions.
pub(crate) type Ready = Box<dyn FnOnce(&[Start]) + Send>;

/// A member of a consumer group.
#[async_trait]
pub(crate) trait GroupMember: Send + Sync + 'static {
    /// The next event. Never resolves after the member is closed. Cancel safe. One caller at a
    /// time.
    async fn next_event(&self) -> MemberEvent;

    /// Resolves the starting positions, answers the rebalance and starts fetching. Returns the
    /// starting positions. If a later rebalance has replaced this one, it returns none and does not
    /// call `ready`.
    async fn assign(&self, rebalance: &Rebalance, ready: Ready) -> Result<Vec<Start>, Error>;

    /// Stops fetching and answers the rebalance.
    async fn unassign(&self, rebalance: &Rebalance) -> Result<(), Error>;

    /// Commits offsets. The outcomes are in the order of `offsets`. At most one call at a time: one
    /// outstanding commit (C8).
    async fn commit(&self, offsets: &[OffsetCommit]) -> Vec<CommitOutcome>;

    /// Whether a request of a commit had no response. The group coordinator may apply it later,
    /// over newer commits of this member, until the member has left the group (E11). Known in
    /// exactly-once mode only, once the commit has returned.
    fn has_lost_commit(&self) -> bool {
        false
    }

    /// Fetches assigned partitions from these offsets on, also partitions that were out of range.
    /// After this has returned, the fetch queue returns nothing that was fetched before. Paused
    /// partitions stay paused.
    ///
    /// # Errors
    /// A partition is not assigned, or the client rejects the seek.
    async fn seek(&self, positions: &[(TopicPartition, i64)]) -> Result<(), Error>;

    /// Does the same as [`seek`](Self::seek). The client also stops fetching these partitions and
    /// starts again: it may have stopped without an error.
    ///
    /// # Errors
    /// As [`seek`](Self::seek).
    async fn restart(&self, positions: &[(TopicPartition, i64)]) -> Result<(), Error> {
        self.seek(positions).await
    }

    /// Pauses or resumes fetching of assigned partitions. Pausing discards prefetched records, and
    /// resuming fetches them again. Records that poll returned at the moment of the pause may be
    /// returned twice. A pause ends with the assignment.
    async fn pause(&self, partitions: &[TopicPartition], paused: bool) -> Result<(), Error>;

    /// Offsets of `point` in the logs of partitions, assigned or not.
    async fn offsets(
        &self,
        partitions: &[TopicPartition],
        point: LogPoint,
    ) -> Result<BTreeMap<TopicPartition, i64>, Error>;

    /// The lowest and the highest offset of a partition, for error messages.
    async fn log_bounds(&self, partition: &TopicPartition) -> Option<(i64, i64)>;

    /// How far the logs of assigned partitions reach. `positions`: the offset after the last record
    /// that was read, or `None` for the lowest in the log. What is not known is missing, such as
    /// after an error that a leader returned, or with a client that reports no statistics. Takes
    /// seconds, and keeps no other call waiting.
    async fn log_reach(&self, _positions: &[(TopicPartition, Option<i64>)]) -> LogReaches {
        LogReaches::new()
    }

    /// The offset after the last record of a partition's log, by the last fetch response. `None`:
    /// not known. Never blocks.
    fn log_end(&self, partition: &TopicPartition) -> Option<i64> {
        let _ = partition;
        None
    }

    /// Leaves the group. From now on the member answers rebalances itself.
    async fn close(&self) -> Result<(), Error>;
}

/// A member that has joined its group, with its fetch queue.
pub(crate) struct Connected {
    pub(crate) member: Arc<dyn GroupMember>,
    pub(crate) queue: Box<dyn FetchQueue>,
}

/// The result of reading one record again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reread {
    Record(OwnedRecord),
    /// The log no longer holds it, and why.
    Gone(String),
}

/// Creates members: the first one, and a new one after a client has failed permanently. It also
/// reads records again, outside of any membership.
#[async_trait]
pub(crate) trait Connector: Send + Sync + 'static {
    /// Connects and subscribes.
    async fn connect(&self) -> Result<Connected, Error>;

    /// Resolves when the client that connected last has to be replaced, although it works. The
    /// result is the reason. The next [`connect`](Self::connect) is expected to succeed. By
    /// default it never resolves.
    fn renewal(&self) -> BoxFuture<'static, String> {
        Box::pin(std::future::pending())
    }

    /// Reads records of a partition again, whichever member owns it. No position moves. `offsets`
    /// ascend and are not empty. The results belong to the first offsets: at least one, and no more
    /// once the records exceed `max_bytes`. It has no timeout of its own.
    ///
    /// Cancel safe: dropping the future abandons the read.
    ///
    /// # Errors
    /// No broker responds, or the brokers cannot return the records.
    async fn read_records(
        &self,
        partition: &TopicPartition,
        offsets: &[i64],
        max_bytes: usize,
    ) -> Result<Vec<Reread>, Error>;
}
