//! Requests of signals, handles and tests to the coordinator of a running graph.

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

/// A request of an operator.
#[derive(Debug)]
pub(crate) enum Command {
    /// The desired pauses have changed.
    Pauses,
    /// Continue a partition at another offset. The reply is dropped if a rebalance interrupts it.
    Seek { partition: TopicPartition, offset: i64, reply: oneshot::Sender<Result<(), Error>> },
}

/// The partitions that the operator wants paused. They outlive assignments and clients, and may
/// include partitions that are not assigned to this consumer.
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

/// The half that sends requests.
#[derive(Clone, Debug)]
pub(crate) struct ControlSender {
    pub(crate) stop: mpsc::UnboundedSender<StopRequest>,
    commands: mpsc::UnboundedSender<Command>,
    desired: Arc<Mutex<DesiredPauses>>,
    pub(crate) board: Arc<StatusBoard>,
}

/// The coordinator's half.
#[derive(Debug)]
pub(crate) struct Controls {
    pub(crate) stops: mpsc::UnboundedReceiver<StopRequest>,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    desired: Arc<Mutex<DesiredPauses>>,
    pub(crate) board: Arc<StatusBoard>,
}

/// Both halves, connected.
pub(crate) fn controls() -> (ControlSender, Controls) {
    let (stop, stops) = mpsc::unbounded_channel();
    let (commands, received) = mpsc::unbounded_channel();
    let desired = Arc::<Mutex<DesiredPauses>>::default();
    let board = Arc::<StatusBoard>::default();
    let sender = ControlSender { stop, commands, desired: desired.clone(), board: board.clone() };
    (sender, Controls { stops, commands: received, desired, board })
}

impl ControlSender {
    /// Changes the desired pauses and notifies the coordinator. It has no effect after the consumer
    /// has ended.
    pub(crate) fn pause(&self, change: impl FnOnce(&mut DesiredPauses)) {
        change(&mut lock(&self.desired));
        let _ = self.commands.send(Command::Pauses);
    }

    /// See [`Command::Seek`].
    ///
    /// # Errors
    /// The partition is not assigned, or its assignment ends before the seek has completed.
    pub(crate) async fn seek(&self, partition: TopicPartition, offset: i64) -> Result<(), Error> {
        let (reply, response) = oneshot::channel();
        let _ = self.commands.send(Command::Seek { partition: partition.clone(), offset, reply });
        response.await.unwrap_or(Err(Error::NotAssigned { partition }))
    }

    pub(crate) fn desired_pauses(&self) -> DesiredPauses {
        lock(&self.desired).clone()
    }
}

impl Controls {
    pub(crate) fn desired_pauses(&self) -> DesiredPauses {
        lock(&self.desired).clone()
    }
}

fn lock(desired: &Mutex<DesiredPauses>) -> MutexGuard<'_, DesiredPauses> {
    desired.lock().unwrap_or_else(PoisonError::into_inner)
}
