//! What the committer is told of records and assignments.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::offset_tracker::OffsetRange;
use super::plan_state::{Beginning, Proposal};
use crate::graph::assignment::id::{Assignment, AssignmentId};
use crate::log_id::LogAt;

/// What the ledger, the committer's list of trackers, is told.
#[derive(Debug)]
pub(crate) enum LedgerEntry {
    /// An assignment begins: sent before anything else of its epoch.
    Assigned(Arc<Assignment>),
    /// Where an assignment starts. `commit`: it is to be committed before any record is: "latest" must not move on a restart.
    Starts {
        epoch: AssignmentId,
        commit: Option<i64>,
        metadata: Option<Arc<str>>,
        /// The offset itself; `None`: the lowest of the log.
        offset: Option<i64>,
        /// Exactly-once mode: which log it is.
        log: Option<LogAt>,
    },
    /// Exactly-once mode: a block task asks how an assignment begins. The reply is dropped if it does not.
    Begin { epoch: AssignmentId, reply: oneshot::Sender<Beginning> },
    /// Exactly-once mode: a block is to be planned, or has been made again so far.
    Plan { epoch: AssignmentId, proposal: Proposal },
    /// Everything that the log holds below `offset` has been observed.
    Ended { epoch: AssignmentId, offset: i64 },
    /// Records of an assignment were observed, finished or abandoned.
    Records { epoch: AssignmentId, ranges: Vec<OffsetRange>, event: LedgerEvent },
}

/// What became of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LedgerEvent {
    Observed {
        /// The ledger is read later.
        at: Instant,
    },
    Finished,
    Abandoned,
}

/// The way to the ledger. Unbounded: an entry a chunk and part, bounded by what the budget admits until it is read.
pub(crate) type Ledger = mpsc::UnboundedSender<LedgerEntry>;
