//! The coordinator's side of the committer: commands and their replies.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::error::Error;
use crate::graph::assignment::id::AssignmentId;
use crate::log_id::LogAt;
use crate::metrics::Progress;
use crate::record::TopicPartition;
use crate::util::future::BoxFuture;

/// How an assignment ended, or how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AssignmentReport {
    pub(crate) partition: TopicPartition,
    pub(crate) assignment: AssignmentId,
    /// The last offset committed in this assignment.
    pub(crate) committed: Option<i64>,
    /// The lowest observed offset that was not finished. `None`: all were.
    pub(crate) unfinished_from: Option<i64>,
    /// All records below it are finished. `None`: none is known to be.
    pub(crate) finished_below: Option<i64>,
    /// When that offset was observed.
    pub(crate) unfinished_since: Option<Instant>,
    /// That record was abandoned: nothing finishes it in this assignment.
    pub(crate) abandoned: bool,
    /// Records were still in progress at the deadline.
    pub(crate) stalled: bool,
    /// The last commit failed.
    pub(crate) commit_failed: bool,
    /// Carried by every commit (metadata in force, C7).
    pub(crate) metadata: Option<Arc<str>>,
    /// Exactly-once mode: the log's id.
    pub(crate) log: Option<LogAt>,
}

/// What the coordinator requests.
pub(crate) enum CommitterCommand {
    /// Wait until all records of these assignments are finished or abandoned, commit them, then
    /// remove the assignments.
    Settle(Removal),
    /// Remove them without a commit (lost means uncommitted, C5).
    Forget(Removal),
    /// Reply with the state of all assignments, including those that are being drained.
    Report { reply: oneshot::Sender<Vec<AssignmentReport>> },
    /// Read the ledger now: an entry cannot wait.
    Read,
}

/// Assignments that leave the ledger.
pub(crate) struct Removal {
    pub(crate) assignments: BTreeSet<AssignmentId>,
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<Result<Vec<AssignmentReport>, Error>>,
}

/// Sends commands to the committer.
#[derive(Clone)]
pub(crate) struct CommitterHandle {
    commands: mpsc::UnboundedSender<CommitterCommand>,
}

impl CommitterHandle {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<CommitterCommand>) {
        let (commands, receiver) = mpsc::unbounded_channel();
        (Self { commands }, receiver)
    }

    /// See [`CommitterCommand::Settle`]. Sends the command at once, not when the reply is awaited.
    ///
    /// # Errors
    /// A commit is still unanswered at the deadline: the partitions must not be released (one
    /// outstanding commit, C8).
    pub(crate) fn settle(&self, assignments: BTreeSet<AssignmentId>, deadline: Instant) -> Reply {
        self.remove(assignments, deadline, CommitterCommand::Settle)
    }

    /// See [`CommitterCommand::Forget`]. Sends the command at once, not when the reply is awaited.
    ///
    /// # Errors
    /// As for [`settle`](Self::settle).
    pub(crate) fn forget(&self, assignments: BTreeSet<AssignmentId>, deadline: Instant) -> Reply {
        self.remove(assignments, deadline, CommitterCommand::Forget)
    }

    /// Makes the committer act on the ledger's entries now instead of at the next read.
    pub(crate) fn read(&self) {
        let _ = self.commands.send(CommitterCommand::Read);
    }

    /// The state of all assignments. Empty if the committer has ended.
    pub(crate) async fn report(&self) -> Vec<AssignmentReport> {
        let (reply, response) = oneshot::channel();
        let _ = self.commands.send(CommitterCommand::Report { reply });
        response.await.unwrap_or_default()
    }

    /// Reports the progress of all assignments to a scrape of the metrics. Does not keep the
    /// committer running.
    pub(crate) fn progress_reporter(
        &self,
    ) -> impl Fn() -> BoxFuture<'static, Vec<Progress>> + Send + Sync + 'static {
        let commands = self.commands.downgrade();
        move || {
            let handle = commands.upgrade().map(|commands| Self { commands });
            Box::pin(async move {
                let Some(handle) = handle else { return Vec::new() };
                let progress = |report: AssignmentReport| Progress {
                    assignment: report.assignment.0,
                    finished_below: report.finished_below,
                    committed: report.committed,
                };
                handle.report().await.into_iter().map(progress).collect()
            })
        }
    }

    fn remove(
        &self,
        assignments: BTreeSet<AssignmentId>,
        deadline: Instant,
        command: impl FnOnce(Removal) -> CommitterCommand,
    ) -> Reply {
        let (reply, response) = oneshot::channel();
        let _ = self.commands.send(command(Removal { assignments, deadline, reply }));
        Box::pin(async move {
            let ended = |_| {
                Err(Error::Internal { message: "the committer has ended before the consumer".to_owned() })
            };
            response.await.unwrap_or_else(ended)
        })
    }
}

/// How assignments ended, once they have.
pub(crate) type Reply = BoxFuture<'static, Result<Vec<AssignmentReport>, Error>>;
