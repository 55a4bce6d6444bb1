//! The messages of the ledger: what tasks report about records and assignments.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::offset_tracker::OffsetRange;
use super::plan_state::{Proposal, StartingPosition};
use crate::graph::assignment::id::{Assignment, AssignmentId};
use crate::log_id::LogAt;

/// One report to the ledger. Each names its assignment (reports name their assignment, C3).
#[derive(Debug)]
pub(crate) enum LedgerEntry {
    /// A new assignment: sent before anything else of it.
    Assigned(Arc<Assignment>),
    /// Where an assignment starts.
    Starts {
        assignment: AssignmentId,
        /// Committed before any record: "latest" must not move on a restart.
        commit: Option<i64>,
        metadata: Option<Arc<str>>,
        /// The offset itself. `None`: the lowest of the log.
        offset: Option<i64>,
        /// Exactly-once mode: the log's id.
        log: Option<LogAt>,
    },
    /// Exactly-once mode: a block task waits for the starting position. The reply is dropped if
    /// there is none.
    AwaitStart { assignment: AssignmentId, reply: oneshot::Sender<StartingPosition> },
    /// Exactly-once mode: a block to plan, or what a replay holds so far.
    Plan { assignment: AssignmentId, proposal: Proposal },
    /// All records that the log holds below `offset` have been observed.
    ReachedEnd { assignment: AssignmentId, offset: i64 },
    /// Records of an assignment were observed, finished or abandoned.
    Records { assignment: AssignmentId, ranges: Vec<OffsetRange>, event: LedgerEvent },
}

/// What happened to records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LedgerEvent {
    Observed {
        /// The committer reads the ledger later.
        at: Instant,
    },
    Finished,
    Abandoned,
}

/// The sending side of the ledger. Unbounded: each chunk and each part of a claim sends one entry,
/// so the memory budget bounds them until the committer reads them.
pub(crate) type Ledger = mpsc::UnboundedSender<LedgerEntry>;
