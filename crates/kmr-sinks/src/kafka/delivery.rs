//! One batch on its way: all of it is handed over, then the reports are awaited.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kmr_core::{Attempt, CodedError, Delivered, Delivery, DeliveryError, RejectedRow};
use rdkafka::error::RDKafkaErrorCode;
use tokio::time::{Instant, sleep, timeout};

use super::batch::{Batch, Failure, Rejected};
use super::error::KafkaWriteError;
use super::link::{Client, Link, Sent};
use super::telemetry;
use super::verdict::{Verdict, idempotence_refused, is_clients_own, verdict};

/// Messages that are handed over before others on the same worker thread get their turn: about a quarter of a millisecond.
const TURN: usize = 256;
/// Wait while the client's queue is full, or others use it.
const FULL_WAIT: Duration = Duration::from_millis(5);

/// A closed batch.
pub(super) struct FrozenMessages {
    pub(super) link: Arc<Link>,
    pub(super) batch: Arc<Batch>,
    /// How long an attempt waits for reports: it ends by itself before the framework drops it, so that it can say why.
    pub(super) patience: Duration,
}

#[async_trait]
impl Delivery for FrozenMessages {
    type Output = usize;

    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<usize>, DeliveryError> {
        let started = Instant::now();
        let kept = async {
            tokio::select! {
                biased;
                done = self.attempt() => done,
                never = self.link.keep() => match never {},
            }
        };
        let done = timeout(self.patience, kept).await;
        let done = done.unwrap_or_else(|_| {
            let last = self.link.current().and_then(|client| client.last_error());
            let no_report = format!("no report within {:?}", self.patience);
            Err(self
                .not_acknowledged(last.map_or(no_report.clone(), |(_, last)| format!("{no_report}; {last}"))))
        });
        match done {
            Ok(()) => {
                let rejected = self.batch.rejected();
                let delivered = self.batch.len() - rejected.len();
                let (topic, took) = (self.batch.own_topic(), started.elapsed());
                telemetry::delivered(topic, delivered, rejected.len(), attempt.number, took);
                let rejected = rejected.into_iter().map(rejected_row).collect();
                Ok(Delivered::new(delivered).with_rejected(rejected))
            }
            Err(error) if error.is_retryable() => Err(DeliveryError::retryable(error)),
            Err(error) => Err(DeliveryError::fatal(error)),
        }
    }
}

/// Nobody wants the rest any more: what the client has not sent goes with it.
impl Drop for FrozenMessages {
    fn drop(&mut self) {
        let open = self.batch.open();
        if open > 0
            && let Some(client) = self.link.current()
        {
            self.link
                .replace(&client, &format!("a delivery was dropped while {open} messages had no report"));
        }
    }
}

impl FrozenMessages {
    /// Sends what is due until every message is acknowledged or rejected, or an error wants a pause or the end.
    ///
    /// Cancel safety: what is handed over stays open; the next attempt goes on with it.
    async fn attempt(&self) -> Result<(), KafkaWriteError> {
        loop {
            {
                let _with_others = self.link.alone.read().await;
                self.hand_over().await?;
                self.batch.settled().await;
            }
            self.judge(self.batch.take_failed(), false)?;
            self.send_alone().await?;
            if !self.batch.is_due() {
                return Ok(());
            }
        }
    }

    /// Hands over all that is due.
    async fn hand_over(&self) -> Result<(), KafkaWriteError> {
        let client = self.usable_client()?;
        let mut turn = 0;
        while let Some(index) = self.batch.open_next() {
            match client.send(&self.batch, index) {
                Sent::Taken => turn += 1,
                Sent::Full => {
                    self.batch.put_back(index);
                    sleep(FULL_WAIT).await;
                }
                Sent::Refused(RDKafkaErrorCode::Fatal) => {
                    self.batch.put_back(index);
                    self.usable_client()?;
                    // Another delivery has put a client in its place: the next attempt is made with that one.
                    return Err(self.not_acknowledged("the producer has failed".to_owned()));
                }
                Sent::Refused(code) => self.refused(index, code)?,
            }
            if turn == TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// The client, unless it has failed for good: then another one takes its place in the next attempt.
    fn usable_client(&self) -> Result<Arc<Client>, KafkaWriteError> {
        let client = self.link.client()?;
        let Some((code, reason)) = client.fatal_error() else { return Ok(client) };
        if code == RDKafkaErrorCode::ClusterAuthorizationFailed {
            return Err(idempotence_refused());
        }
        let reason = format!("the producer has failed: {reason}");
        self.link.replace(&client, &reason);
        Err(self.not_acknowledged(reason))
    }

    /// The client does not take an open message.
    fn refused(&self, index: usize, code: RDKafkaErrorCode) -> Result<(), KafkaWriteError> {
        self.batch.report(index, Err(code));
        if is_clients_own(code) {
            // Nobody else had a part in it. Earlier failures are judged with it, which is as well.
            let (own, others): (Vec<_>, Vec<_>) =
                self.batch.take_failed().into_iter().partition(|failure| failure.index == index);
            // All are judged, whatever the first ones lead to: none may be in no list.
            let others = self.judge(others, false);
            self.judge(own, true)?;
            others?;
        }
        Ok(())
    }

    /// Sorts failures by what follows from them. The worst of them is the attempt's error; all are due again then.
    fn judge(&self, failures: Vec<Failure>, alone: bool) -> Result<(), KafkaWriteError> {
        let (mut again, mut isolate, mut stop, mut later) = (Vec::new(), Vec::new(), None, None);
        for Failure { index, code } in failures {
            match verdict(&self.batch, index, code, alone) {
                Verdict::Again if alone => isolate.push(index),
                Verdict::Again => again.push(index),
                Verdict::Later => {
                    again.push(index);
                    later = Some(code);
                }
                Verdict::Alone => isolate.push(index),
                Verdict::Reject(error) => self.batch.reject(index, error),
                Verdict::Stop(error) => {
                    again.push(index);
                    stop.get_or_insert(error);
                }
            }
        }
        self.batch.due_again(again);
        self.batch.send_alone(isolate);
        match (stop, later) {
            (Some(error), _) => Err(error),
            (None, Some(code)) => Err(self.not_acknowledged(self.reason(code))),
            (None, None) => Ok(()),
        }
    }

    /// Sends messages one by one whose requests were refused because of one in them.
    async fn send_alone(&self) -> Result<(), KafkaWriteError> {
        let waiting = self.batch.alone();
        if waiting == 0 {
            return Ok(());
        }
        let _alone = self.link.alone.write().await;
        telemetry::sent_alone(self.batch.own_topic(), waiting);
        let client = self.usable_client()?;
        while !client.is_idle() {
            sleep(FULL_WAIT).await; // an attempt that was dropped has left messages
        }
        while let Some(index) = self.batch.open_alone() {
            match client.send(&self.batch, index) {
                Sent::Taken => self.batch.settled().await,
                Sent::Full => {
                    self.batch.report(index, Err(RDKafkaErrorCode::PurgeQueue));
                    sleep(FULL_WAIT).await;
                }
                Sent::Refused(code) => self.batch.report(index, Err(code)),
            }
            self.judge(self.batch.take_failed(), true)?;
        }
        Ok(())
    }

    fn reason(&self, code: RDKafkaErrorCode) -> String {
        let last = self.link.current().and_then(|client| client.last_error());
        last.map_or_else(|| code.to_string(), |(_, last)| format!("{code}; {last}"))
    }

    fn not_acknowledged(&self, reason: String) -> KafkaWriteError {
        let (topic, messages) = (self.batch.own_topic().to_owned(), self.batch.unfinished());
        KafkaWriteError::NotAcknowledged { topic, messages, reason }
    }
}

fn rejected_row(Rejected { index, error }: Rejected) -> RejectedRow {
    match error.code() {
        Some(code) => RejectedRow::new(index, CodedError::new(code.to_string(), error)),
        None => RejectedRow::new(index, error),
    }
}
