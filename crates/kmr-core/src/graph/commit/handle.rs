//! The coordinator's way to the committer.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::error::Error;
use crate::graph::assignment::id::AssignmentId;
use crate::log_id::LogAt;
use crate::record::TopicPartition;
use crate::util::future::BoxFuture;

/// How an assignment ended, or how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) partition: TopicPartition,
    pub(crate) epoch: AssignmentId,
    /// The offset committed last in this assignment.
    pub(crate) committed: Option<i64>,
    /// The lowest observed offset that was not finished; `None`: all were.
    pub(crate) unfinished_from: Option<i64>,
    /// When that offset was observed.
    pub(crate) unfinished_since: Option<Instant>,
    /// Nobody will finish it in this assignment, whatever else is under way.
    pub(crate) given_up: bool,
    /// Something was still under way at the deadline.
    pub(crate) stalled: bool,
    /// The last commit did not go through.
    pub(crate) commit_failed: bool,
    /// What every commit has to carry (C7).
    pub(crate) metadata: Option<Arc<str>>,
    /// Exactly-once mode: which log it is.
    pub(crate) log: Option<LogAt>,
}

/// What the coordinator asks for.
pub(crate) enum Order {
    /// Wait until all records of these assignments are finished or abandoned, commit, and forget them.
    Settle {
        epochs: BTreeSet<AssignmentId>,
        deadline: Instant,
        reply: oneshot::Sender<Result<Vec<Settled>, Error>>,
    },
    /// Forget them, without a commit (C5).
    Forget {
        epochs: BTreeSet<AssignmentId>,
        deadline: Instant,
        reply: oneshot::Sender<Result<Vec<Settled>, Error>>,
    },
    /// Say how far all assignments are, those on their way out included.
    Report { reply: oneshot::Sender<Vec<Settled>> },
    /// Read the ledger: it says something that cannot wait.
    Read,
}

/// The coordinator's way to the committer.
#[derive(Clone)]
pub(crate) struct CommitterHandle {
    orders: mpsc::UnboundedSender<Order>,
}

impl CommitterHandle {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (orders, receiver) = mpsc::unbounded_channel();
        (Self { orders }, receiver)
    }

    /// See [`Order::Settle`]. The order is given at once, not when the answer is awaited.
    ///
    /// # Errors
    /// A commit is still unanswered at the deadline: partitions must not be handed back (C8).
    pub(crate) fn settle(&self, epochs: BTreeSet<AssignmentId>, deadline: Instant) -> Reply {
        self.ask(|reply| Order::Settle { epochs, deadline, reply })
    }

    /// See [`Order::Forget`]. The order is given at once, not when the answer is awaited.
    ///
    /// # Errors
    /// As for [`settle`](Self::settle).
    pub(crate) fn forget(&self, epochs: BTreeSet<AssignmentId>, deadline: Instant) -> Reply {
        self.ask(|reply| Order::Forget { epochs, deadline, reply })
    }

    /// What the ledger has been told is acted upon now, and not when it is read next.
    pub(crate) fn read(&self) {
        let _ = self.orders.send(Order::Read);
    }

    /// How far all assignments are; none if the committer has ended.
    pub(crate) async fn report(&self) -> Vec<Settled> {
        let (reply, answer) = oneshot::channel();
        let _ = self.orders.send(Order::Report { reply });
        answer.await.unwrap_or_default()
    }

    fn ask(&self, order: impl FnOnce(oneshot::Sender<Result<Vec<Settled>, Error>>) -> Order) -> Reply {
        let (reply, answer) = oneshot::channel();
        let _ = self.orders.send(order(reply));
        Box::pin(async move {
            let gone = |_| {
                Err(Error::Internal { message: "the committer has ended before the consumer".to_owned() })
            };
            answer.await.unwrap_or_else(gone)
        })
    }
}

/// How assignments ended, when they have.
pub(crate) type Reply = BoxFuture<'static, Result<Vec<Settled>, Error>>;
