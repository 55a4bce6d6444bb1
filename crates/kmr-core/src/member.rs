//! The seam between the graph and Kafka: what the graph asks of a group member, and what it is told.
//!
//! The Kafka client implements it; so does the simulated cluster of the tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Error;
use crate::log_id::LogAt;
use crate::record::{OwnedRecord, Record, TopicPartition};
use crate::util::future::BoxFuture;

/// Memory that a fetched record takes beside its key and payload: measured at 340 bytes with librdkafka 2.12.1.
pub(crate) const RECORD_OVERHEAD: usize = 340;

/// Records of one partition, in the order of their offsets.
pub(crate) trait RecordBatch: Send {
    /// Number of records.
    fn len(&self) -> usize;
    /// The offset of the record at `index`.
    fn offset(&self, index: usize) -> i64;
    /// The record at `index`, which is below `len`.
    fn record(&self, index: usize) -> Record<'_>;
}

/// What comes out of the member's fetch queue.
pub(crate) enum Fetched {
    /// Records of one partition.
    Records {
        topic: Arc<str>,
        partition: i32,
        /// What they take of the byte budget.
        bytes: usize,
        batch: Box<dyn RecordBatch>,
    },
    /// Everything below `offset`, the end of the log at that time, has been handed out. Only if the member was asked to say so. May be
    /// said again, after a pause or a rebalance.
    End { topic: Arc<str>, partition: i32, offset: i64 },
    /// A partition cannot be read (any more).
    Failed { topic: Arc<str>, partition: i32, failure: PartitionFailure },
}

/// Why a partition cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PartitionFailure {
    /// The offset is not in the log (any more).
    OutOfRange { offset: Option<i64> },
    /// The user may not read the topic.
    Unauthorized,
    /// The topic or the partition is gone: a rebalance will take it away.
    Gone(String),
    /// Something else, at that offset: a batch that cannot be decoded or fails its checksum, an error of the broker's.
    Unreadable { offset: i64, reason: String },
}

/// The member's fetch queue: all partitions, one reader.
pub(crate) trait FetchQueue: Send + 'static {
    /// Takes at most about `max_records` records; never blocks.
    fn poll(&mut self, max_records: usize) -> Vec<Fetched>;

    /// Resolves when something may have come since the last `poll` that returned nothing. Cancel safe.
    fn readable(&self) -> BoxFuture<'_, ()>;
}

/// How the group rebalances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RebalanceProtocol {
    /// Everything is given back, then everything is handed out.
    Eager,
    /// Only what moves is given back: cooperative-sticky, and KIP-848.
    Cooperative,
}

/// A rebalance that has to be answered, exactly once, by the id it came with (R5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rebalance {
    pub(crate) id: u64,
    pub(crate) protocol: RebalanceProtocol,
    pub(crate) change: Change,
    pub(crate) partitions: Vec<TopicPartition>,
}

/// What a rebalance does to its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Assign,
    Revoke,
    /// They are gone already, somebody else may own them: nothing of them may be committed (C5).
    Lose,
}

/// What the member reports.
#[derive(Debug)]
pub(crate) enum MemberEvent {
    Rebalance(Rebalance),
    /// The client cannot go on.
    Fatal(Error),
}

/// Where a partition that was assigned starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) partition: TopicPartition,
    /// `None`: at the lowest offset in the log, whatever it is.
    pub(crate) offset: Option<i64>,
    /// The group has committed nothing: the offset was chosen, and has to be committed so that a restart does not move it.
    pub(crate) chosen: bool,
    /// The metadata that was committed with the offset: in force until it is replaced (C7).
    pub(crate) metadata: Option<Arc<str>>,
    /// Which log this is, as far as the member was asked to find out: exactly-once mode needs it.
    pub(crate) log: Option<LogAt>,
}

/// A place in the log of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogPoint {
    /// The lowest offset in the log.
    Low,
    /// The offset behind the last record.
    End,
    /// The first record with this timestamp, in milliseconds since the Unix epoch, or a later one; the end if there is none.
    Time(i64),
}

/// An offset to commit: everything below it is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OffsetCommit {
    pub(crate) partition: TopicPartition,
    pub(crate) offset: i64,
    /// The metadata in force, which a commit without it would wipe (C7).
    pub(crate) metadata: Option<Arc<str>>,
}

/// What the group's coordinator said about one offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommitOutcome {
    Committed,
    /// This member does not own the partition any more, as far as the broker knows: an event, not an error (C4).
    NotOwned(String),
    /// The topic is gone: nobody can commit for it any more.
    Gone(String),
    /// May succeed next time.
    Retryable(String),
    /// Will not succeed.
    Failed(String),
}

impl CommitOutcome {
    /// Why the offset is not committed; `None`: it is.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            CommitOutcome::Committed => None,
            CommitOutcome::NotOwned(reason)
            | CommitOutcome::Gone(reason)
            | CommitOutcome::Retryable(reason)
            | CommitOutcome::Failed(reason) => Some(reason),
        }
    }
}

/// Called at the moment between two assignments: nothing of an earlier one comes out of the fetch queue any more, and nothing of this
/// one has yet. A record that was fetched for an earlier one is not where this one starts: taken for its first, it would let those
/// before it be skipped.
pub(crate) type Ready = Box<dyn FnOnce() + Send>;

/// A member of a consumer group.
#[async_trait]
pub(crate) trait GroupMember: Send + Sync + 'static {
    /// The next event; pends for ever once the member is closed. Cancel safe. One caller.
    async fn next_event(&self) -> MemberEvent;

    /// Starts fetching: resolves where each partition starts, and answers the rebalance. Returns the starts; none if the
    /// rebalance has been overtaken, and `ready` is not called then.
    async fn assign(&self, rebalance: &Rebalance, ready: Ready) -> Result<Vec<Start>, Error>;

    /// Stops fetching and answers the rebalance.
    async fn unassign(&self, rebalance: &Rebalance) -> Result<(), Error>;

    /// Commits offsets; the outcomes are in the order of `offsets`. At most one call at a time (C8).
    async fn commit(&self, offsets: &[OffsetCommit]) -> Vec<CommitOutcome>;

    /// Fetches assigned partitions from these offsets on, also those that were out of range. What was fetched before does not
    /// come out of the fetch queue after this has returned. Paused partitions stay paused.
    ///
    /// # Errors
    /// A partition is not assigned (any more); the client refuses.
    async fn seek(&self, positions: &[(TopicPartition, i64)]) -> Result<(), Error>;

    /// Stops or resumes fetching assigned partitions. Pausing throws away what is prefetched; resuming fetches it again, and
    /// may hand out again what was handed out at the same moment. Ends with the assignment.
    async fn pause(&self, partitions: &[TopicPartition], paused: bool) -> Result<(), Error>;

    /// Offsets of that place in the logs of partitions, assigned or not.
    async fn offsets(
        &self,
        partitions: &[TopicPartition],
        point: LogPoint,
    ) -> Result<BTreeMap<TopicPartition, i64>, Error>;

    /// The lowest and the highest offset of a partition, for error messages.
    async fn watermarks(&self, partition: &TopicPartition) -> Option<(i64, i64)>;

    /// Leaves the group. Rebalances that come now are answered by the member itself.
    async fn close(&self) -> Result<(), Error>;
}

/// A member that has joined its group, with its fetch queue.
pub(crate) struct Connected {
    pub(crate) member: Arc<dyn GroupMember>,
    pub(crate) queue: Box<dyn FetchQueue>,
}

/// What became of a record that is wanted again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reread {
    Record(OwnedRecord),
    /// The log does not hold it any more, and why.
    Gone(String),
}

/// Makes members: the first, and another one in the place of one that failed for good. And reads records again, which is nobody's
/// membership.
#[async_trait]
pub(crate) trait Connector: Send + Sync + 'static {
    /// Connects and subscribes.
    async fn connect(&self) -> Result<Connected, Error>;

    /// Reads records of a partition again, whoever owns it; nobody's position moves. `offsets` ascend and are not empty. The answers
    /// are those to the first of them: to one at least, and to no more behind `max_bytes` of records. It has no limit in time of its own.
    ///
    /// Cancel safe: what was begun is given up.
    ///
    /// # Errors
    /// No broker answers, or one that may not, or cannot, hand the records out.
    async fn read_records(
        &self,
        partition: &TopicPartition,
        offsets: &[i64],
        max_bytes: usize,
    ) -> Result<Vec<Reread>, Error>;
}
