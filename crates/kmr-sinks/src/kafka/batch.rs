//! A frozen batch, and how far each of its messages has come.
//!
//! Invariants:
//! 1. A message is handed to the client once until its report says that it failed: an attempt that is dropped leaves it open, and the
//!    next one waits for the same report. So retries send what is known not to be there, and nothing twice for want of patience.
//! 2. Each message is in exactly one place: due, open, failed, alone, rejected, or acknowledged.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::Notify;

use super::error::KafkaWriteError;
use super::message::KafkaMessage;

/// The messages of one delivery.
pub(super) struct Batch {
    /// Where messages go that name no topic.
    topic: Arc<str>,
    messages: Vec<KafkaMessage>,
    progress: Mutex<Progress>,
    reported: Notify,
}

#[derive(Default)]
struct Progress {
    /// To be handed over, in order.
    due: VecDeque<usize>,
    /// To be handed over one by one, when nothing else is under way.
    alone: VecDeque<usize>,
    /// Handed over; their reports are still to come.
    open: usize,
    acknowledged: usize,
    failed: Vec<Failure>,
    rejected: Vec<Rejected>,
}

/// A message whose report says that it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) index: usize,
    pub(super) code: RDKafkaErrorCode,
}

/// A message that the broker will never take.
#[derive(Clone, Debug)]
pub(super) struct Rejected {
    pub(super) index: usize,
    pub(super) error: KafkaWriteError,
}

impl Batch {
    pub(super) fn new(topic: Arc<str>, messages: Vec<KafkaMessage>) -> Self {
        let progress = Progress { due: (0..messages.len()).collect(), ..Progress::default() };
        Self { topic, messages, progress: Mutex::new(progress), reported: Notify::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Where messages go that name no topic.
    pub(super) fn own_topic(&self) -> &str {
        &self.topic
    }

    pub(super) fn message(&self, index: usize) -> &KafkaMessage {
        &self.messages[index]
    }

    /// Where a message goes.
    pub(super) fn topic(&self, index: usize) -> &str {
        self.messages[index].topic.as_deref().unwrap_or(&self.topic)
    }

    /// The next message that is due: open from now on.
    pub(super) fn open_next(&self) -> Option<usize> {
        let mut progress = self.lock();
        let index = progress.due.pop_front()?;
        progress.open += 1;
        Some(index)
    }

    /// The next message that is to be sent alone: open from now on.
    pub(super) fn open_alone(&self) -> Option<usize> {
        let mut progress = self.lock();
        let index = progress.alone.pop_front()?;
        progress.open += 1;
        Some(index)
    }

    /// The client did not take an open message: it is due again, as the first.
    pub(super) fn put_back(&self, index: usize) {
        let mut progress = self.lock();
        progress.open -= 1;
        progress.due.push_front(index);
    }

    /// The report of an open message.
    pub(super) fn report(&self, index: usize, result: Result<(), RDKafkaErrorCode>) {
        let mut progress = self.lock();
        progress.open -= 1;
        match result {
            Ok(()) => progress.acknowledged += 1,
            Err(code) => progress.failed.push(Failure { index, code }),
        }
        if progress.open == 0 {
            self.reported.notify_one();
        }
    }

    /// Messages whose reports are still to come.
    pub(super) fn open(&self) -> usize {
        self.lock().open
    }

    /// Messages that are neither acknowledged nor rejected.
    pub(super) fn unfinished(&self) -> usize {
        let progress = self.lock();
        self.messages.len() - progress.acknowledged - progress.rejected.len()
    }

    /// Resolves when every report is there. Cancel safe; one caller.
    pub(super) async fn settled(&self) {
        while self.open() > 0 {
            self.reported.notified().await;
        }
    }

    /// Takes the failures, in the order of their messages.
    pub(super) fn take_failed(&self) -> Vec<Failure> {
        let mut failed = std::mem::take(&mut self.lock().failed);
        failed.sort_unstable_by_key(|failure| failure.index);
        failed
    }

    /// Messages that failed are due again.
    pub(super) fn due_again(&self, indices: impl IntoIterator<Item = usize>) {
        self.lock().due.extend(indices);
    }

    pub(super) fn is_due(&self) -> bool {
        !self.lock().due.is_empty()
    }

    /// Messages that failed are to be sent one by one.
    pub(super) fn send_alone(&self, indices: impl IntoIterator<Item = usize>) {
        self.lock().alone.extend(indices);
    }

    pub(super) fn alone(&self) -> usize {
        self.lock().alone.len()
    }

    pub(super) fn reject(&self, index: usize, error: KafkaWriteError) {
        self.lock().rejected.push(Rejected { index, error });
    }

    /// What was rejected, when all is done.
    pub(super) fn rejected(&self) -> Vec<Rejected> {
        self.lock().rejected.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_open_message_is_not_due_until_its_report_says_that_it_failed() {
        let batch = Batch::new("t".into(), vec![KafkaMessage::new("a"), KafkaMessage::new("b")]);
        assert_eq!((batch.open_next(), batch.open_next(), batch.open_next()), (Some(0), Some(1), None));
        batch.report(1, Err(RDKafkaErrorCode::MessageTimedOut));
        assert_eq!((batch.open(), batch.unfinished(), batch.is_due()), (1, 2, false));
        batch.report(0, Ok(()));
        batch.settled().await;
        let failed = batch.take_failed();
        assert_eq!(failed, [Failure { index: 1, code: RDKafkaErrorCode::MessageTimedOut }]);
        batch.due_again([1]);
        assert_eq!((batch.open_next(), batch.open_next()), (Some(1), None));
        batch.put_back(1);
        assert_eq!((batch.open(), batch.is_due(), batch.unfinished()), (0, true, 1));
    }
}
