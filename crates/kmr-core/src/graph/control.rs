//! The way into the running graph: wishes of signals, handles and tests, as messages to the coordinator.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::observe::status::StatusBoard;
use crate::error::Error;
use crate::record::TopicPartition;

/// A request to stop the consumer. The first one ends it in order, one that forces ends it at once.
/// Every source decides by itself which of its requests force: see
/// [`ConsumerHandle::stop`](crate::ConsumerHandle::stop).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopRequest {
    /// The source, for the log.
    pub(crate) source: &'static str,
    /// Whether the consumer ends at once, with records unfinished.
    pub(crate) forces: bool,
}

impl StopRequest {
    /// Ends the consumer in order. Repeating it changes nothing.
    pub(crate) fn in_order(source: &'static str) -> Self {
        Self { source, forces: false }
    }

    /// Ends the consumer at once.
    pub(crate) fn forced(source: &'static str) -> Self {
        Self { source, forces: true }
    }
}

/// What an operator wants of a running consumer.
#[derive(Debug)]
pub(crate) enum Command {
    /// The will has changed.
    Pauses,
    /// A partition is to go on at another offset. The reply is dropped if something else comes in between.
    Seek { partition: TopicPartition, offset: i64, reply: oneshot::Sender<Result<(), Error>> },
}

/// Which partitions the operator wants paused. Outlives assignments and clients, and may name partitions that are not ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DesiredPauses {
    pub(crate) all: bool,
    pub(crate) partitions: BTreeSet<TopicPartition>,
}

impl DesiredPauses {
    pub(crate) fn pauses(&self, partition: &TopicPartition) -> bool {
        self.all || self.partitions.contains(partition)
    }
}

/// The sending half.
#[derive(Clone, Debug)]
pub(crate) struct ControlSender {
    pub(crate) stop: mpsc::UnboundedSender<StopRequest>,
    commands: mpsc::UnboundedSender<Command>,
    will: Arc<Mutex<DesiredPauses>>,
    pub(crate) board: Arc<StatusBoard>,
}

/// The graph's half.
#[derive(Debug)]
pub(crate) struct Controls {
    pub(crate) stops: mpsc::UnboundedReceiver<StopRequest>,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    will: Arc<Mutex<DesiredPauses>>,
    pub(crate) board: Arc<StatusBoard>,
}

/// Both halves, connected.
pub(crate) fn controls() -> (ControlSender, Controls) {
    let (stop, stops) = mpsc::unbounded_channel();
    let (commands, received) = mpsc::unbounded_channel();
    let will = Arc::<Mutex<DesiredPauses>>::default();
    let board = Arc::<StatusBoard>::default();
    let remote = ControlSender { stop, commands, will: will.clone(), board: board.clone() };
    (remote, Controls { stops, commands: received, will, board })
}

impl ControlSender {
    /// Changes what is to be paused, and tells the coordinator. After the end of the consumer it has no effect.
    pub(crate) fn pause(&self, change: impl FnOnce(&mut DesiredPauses)) {
        change(&mut lock(&self.will));
        let _ = self.commands.send(Command::Pauses);
    }

    /// See [`Command::Seek`].
    ///
    /// # Errors
    /// The partition is not assigned, or does not stay so.
    pub(crate) async fn seek(&self, partition: TopicPartition, offset: i64) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Seek { partition: partition.clone(), offset, reply });
        answer.await.unwrap_or(Err(Error::NotAssigned { partition }))
    }

    pub(crate) fn will(&self) -> DesiredPauses {
        lock(&self.will).clone()
    }
}

impl Controls {
    pub(crate) fn will(&self) -> DesiredPauses {
        lock(&self.will).clone()
    }
}

fn lock(will: &Mutex<DesiredPauses>) -> MutexGuard<'_, DesiredPauses> {
    will.lock().unwrap_or_else(PoisonError::into_inner)
}
