//! A frozen batch, and the state of each of its messages.
//!
//! Invariants:
//! 1. A message is passed to the client once until its report is a failure. An attempt that is
//!    dropped leaves it in flight, and the next attempt waits for the same report. So a retry sends
//!    only messages that are known to have failed, and a timeout duplicates nothing.
//! 2. Each message is in exactly one state: due, in flight, failed, alone, rejected or
//!    acknowledged.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::Notify;

use super::error::KafkaWriteError;
use super::message::KafkaMessage;
use super::shrink::Shrinking;

/// The messages of one delivery.
pub(super) struct Batch {
    /// The topic of messages that name none.
    topic: Arc<str>,
    messages: Vec<Shrinking>,
    progress: Mutex<SendProgress>,
    reported: Notify,
}

#[derive(Default)]
struct SendProgress {
    /// Messages to send, in order.
    due: VecDeque<usize>,
    /// Messages to send one by one, while nothing else is in flight.
    alone: VecDeque<usize>,
    /// Messages at the client that have no report yet.
    in_flight: usize,
    acknowledged: usize,
    failed: Vec<Failure>,
    rejected: Vec<Rejected>,
}

/// A message whose report is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) index: usize,
    pub(super) code: RDKafkaErrorCode,
}

/// A message that the broker will never accept.
#[derive(Clone, Debug)]
pub(super) struct Rejected {
    pub(super) index: usize,
    pub(super) error: KafkaWriteError,
}

impl Batch {
    pub(super) fn new(topic: Arc<str>, messages: Vec<KafkaMessage>) -> Self {
        let progress = SendProgress { due: (0..messages.len()).collect(), ..SendProgress::default() };
        let messages = messages.into_iter().map(Shrinking::from).collect();
        Self { topic, messages, progress: Mutex::new(progress), reported: Notify::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// The topic of messages that name none.
    pub(super) fn default_topic(&self) -> &str {
        &self.topic
    }

    pub(super) fn message(&self, index: usize) -> &KafkaMessage {
        self.messages[index].message()
    }

    /// Replaces a message that is too large by a smaller one. Returns whether there is one.
    pub(super) fn shrink(&self, index: usize) -> bool {
        self.messages[index].shrink()
    }

    /// The topic of a message.
    pub(super) fn topic(&self, index: usize) -> &str {
        self.message(index).topic.as_deref().unwrap_or(&self.topic)
    }

    /// Takes the next due message and marks it as in flight.
    pub(super) fn start_next(&self) -> Option<usize> {
        let mut progress = self.lock();
        let index = progress.due.pop_front()?;
        progress.in_flight += 1;
        Some(index)
    }

    /// Takes the next message to send alone and marks it as in flight.
    pub(super) fn start_alone(&self) -> Option<usize> {
        let mut progress = self.lock();
        let index = progress.alone.pop_front()?;
        progress.in_flight += 1;
        Some(index)
    }

    /// Makes a message that the client did not accept due again, as the first one.
    pub(super) fn requeue(&self, index: usize) {
        let mut progress = self.lock();
        progress.in_flight -= 1;
        progress.due.push_front(index);
    }

    /// Records the report of a message in flight.
    pub(super) fn report(&self, index: usize, result: Result<(), RDKafkaErrorCode>) {
        let mut progress = self.lock();
        progress.in_flight -= 1;
        match result {
            Ok(()) => progress.acknowledged += 1,
            Err(code) => progress.failed.push(Failure { index, code }),
        }
        if progress.in_flight == 0 {
            self.reported.notify_one();
        }
    }

    /// Number of messages without a report.
    pub(super) fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    /// Number of messages that are neither acknowledged nor rejected.
    pub(super) fn unfinished(&self) -> usize {
        let progress = self.lock();
        self.messages.len() - progress.acknowledged - progress.rejected.len()
    }

    /// Waits until no message is in flight. Cancel safe. One caller at a time: a report wakes one.
    pub(super) async fn settled(&self) {
        while self.in_flight() > 0 {
            self.reported.notified().await;
        }
    }

    /// Takes the failures, in the order of their messages.
    pub(super) fn take_failed(&self) -> Vec<Failure> {
        let mut failed = std::mem::take(&mut self.lock().failed);
        failed.sort_unstable_by_key(|failure| failure.index);
        failed
    }

    /// Makes failed messages due again.
    pub(super) fn resend(&self, indices: impl IntoIterator<Item = usize>) {
        self.lock().due.extend(indices);
    }

    pub(super) fn has_due(&self) -> bool {
        !self.lock().due.is_empty()
    }

    /// Makes failed messages due one by one.
    pub(super) fn resend_alone(&self, indices: impl IntoIterator<Item = usize>) {
        self.lock().alone.extend(indices);
    }

    /// Number of messages to send one by one.
    pub(super) fn due_alone(&self) -> usize {
        self.lock().alone.len()
    }

    /// Rejects a failed message.
    pub(super) fn reject(&self, index: usize, error: KafkaWriteError) {
        self.lock().rejected.push(Rejected { index, error });
    }

    /// The rejected messages.
    pub(super) fn rejected(&self) -> Vec<Rejected> {
        self.lock().rejected.clone()
    }

    fn lock(&self) -> MutexGuard<'_, SendProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_in_flight_is_not_due_until_its_report_is_a_failure() {
        let batch = Batch::new("t".into(), vec![KafkaMessage::new("a"), KafkaMessage::new("b")]);
        assert_eq!((batch.start_next(), batch.start_next(), batch.start_next()), (Some(0), Some(1), None));
        batch.report(1, Err(RDKafkaErrorCode::MessageTimedOut));
        assert_eq!((batch.in_flight(), batch.unfinished(), batch.has_due()), (1, 2, false));
        batch.report(0, Ok(()));
        batch.settled().await;
        let failed = batch.take_failed();
        assert_eq!(failed, [Failure { index: 1, code: RDKafkaErrorCode::MessageTimedOut }]);
        batch.resend([1]);
        assert_eq!((batch.start_next(), batch.start_next()), (Some(1), None));
        batch.requeue(1);
        assert_eq!((batch.in_flight(), batch.has_due(), batch.unfinished()), (0, true, 1));
    }
}
