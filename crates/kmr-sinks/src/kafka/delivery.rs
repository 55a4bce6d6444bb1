//! Delivers one batch: sends all messages, then waits for their delivery reports.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kmr_core::{Attempt, Delivered, Delivery, DeliveryError, RejectedRow};
use rdkafka::error::RDKafkaErrorCode;
use tokio::time::{Instant, sleep, timeout};

use super::batch::{Batch, Failure, Rejected};
use super::client::{Client, Sent};
use super::error::KafkaWriteError;
use super::error_code::{FailureClass, classify, idempotence_denied, is_client_rejection};
use super::shared_client::SharedClient;
use super::telemetry;
use crate::errors::{delivery_error, with_code};

/// Messages that are sent before other tasks can run: they take about a quarter of a millisecond.
const YIELD_AFTER: usize = 256;
/// Wait while the client's queue is full or in use.
const FULL_WAIT: Duration = Duration::from_millis(5);

/// A closed batch.
pub(super) struct FrozenMessages {
    pub(super) client: Arc<SharedClient>,
    pub(super) batch: Arc<Batch>,
    /// How long an attempt waits for delivery reports. It is shorter than the framework's timeout
    /// per attempt, so that the error names the reason.
    pub(super) report_timeout: Duration,
}

#[async_trait]
impl Delivery for FrozenMessages {
    type Output = usize;

    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<usize>, DeliveryError> {
        let started = Instant::now();
        let attempt_with_maintenance = async {
            tokio::select! {
                biased;
                result = self.attempt() => result,
                never = self.client.maintain() => match never {},
            }
        };
        let result = timeout(self.report_timeout, attempt_with_maintenance).await;
        match result.unwrap_or_else(|_| Err(self.no_report())) {
            Ok(()) => {
                let rejected = self.batch.rejected();
                let delivered = self.batch.len() - rejected.len();
                let (topic, took) = (self.batch.default_topic(), started.elapsed());
                telemetry::delivered(topic, delivered, rejected.len(), attempt.number, took);
                let rejected = rejected.into_iter().map(rejected_row).collect();
                Ok(Delivered::new(delivered).with_rejected(rejected))
            }
            Err(error) => {
                Err(delivery_error(error.is_retryable(), error.code().map(|code| code.to_string()), error))
            }
        }
    }
}

/// If a batch is dropped while messages have no report, its client is replaced. The old client
/// drops its unsent messages.
impl Drop for FrozenMessages {
    fn drop(&mut self) {
        let in_flight = self.batch.in_flight();
        if in_flight > 0
            && let Some(client) = self.client.current()
        {
            self.client.replace(
                &client,
                &format!("a delivery was dropped while {in_flight} messages had no report"),
            );
        }
    }
}

impl FrozenMessages {
    /// Sends due messages until every message is acknowledged or rejected. An error ends the
    /// attempt.
    ///
    /// # Cancel safety
    /// Messages in flight stay in flight. The next attempt waits for their reports.
    async fn attempt(&self) -> Result<(), KafkaWriteError> {
        self.client.renew_if_due().await;
        loop {
            {
                // `send_alone` holds this lock exclusively.
                let _shared = self.client.alone.read().await;
                self.send_due().await?;
                self.batch.settled().await;
            }
            self.handle_failures(self.batch.take_failed(), false)?;
            self.send_alone().await?;
            if !self.batch.has_due() {
                return Ok(());
            }
        }
    }

    /// Sends all due messages.
    async fn send_due(&self) -> Result<(), KafkaWriteError> {
        let client = self.usable_client()?;
        let mut sent = 0;
        while let Some(index) = self.batch.start_next() {
            match client.send(&self.batch, index) {
                Sent::Accepted => sent += 1,
                Sent::Full => {
                    self.batch.requeue(index);
                    sleep(FULL_WAIT).await;
                }
                Sent::Rejected(RDKafkaErrorCode::Fatal) => {
                    self.batch.requeue(index);
                    self.usable_client()?;
                    // Another delivery has replaced the client: the next attempt uses the new one.
                    return Err(self.not_acknowledged("the producer has failed".to_owned()));
                }
                Sent::Rejected(code) => self.client_rejected(index, code)?,
            }
            if sent == YIELD_AFTER {
                sent = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Returns the client. Fails if the client has failed permanently, and replaces it for the next
    /// attempt.
    fn usable_client(&self) -> Result<Arc<Client>, KafkaWriteError> {
        let client = self.client.get()?;
        let Some((code, reason)) = client.fatal_error() else { return Ok(client) };
        if code == RDKafkaErrorCode::ClusterAuthorizationFailed {
            return Err(idempotence_denied());
        }
        let reason = format!("the producer has failed: {reason}");
        self.client.replace(&client, &reason);
        Err(self.not_acknowledged(reason))
    }

    /// Handles a message that the client did not accept.
    fn client_rejected(&self, index: usize, code: RDKafkaErrorCode) -> Result<(), KafkaWriteError> {
        self.batch.report(index, Err(code));
        if is_client_rejection(code) {
            // The message alone caused it. Earlier failures of other messages are handled too.
            let (own, others): (Vec<_>, Vec<_>) =
                self.batch.take_failed().into_iter().partition(|failure| failure.index == index);
            // Handle all failures before the first error returns: each message needs a new state.
            let others = self.handle_failures(others, false);
            self.handle_failures(own, true)?;
            others?;
        }
        Ok(())
    }

    /// Handles failures by their class. The worst one becomes the error of the attempt. `alone`:
    /// each message was the only one in its request.
    fn handle_failures(&self, failures: Vec<Failure>, alone: bool) -> Result<(), KafkaWriteError> {
        let (mut resend, mut resend_alone, mut stop, mut retry) = (Vec::new(), Vec::new(), None, None);
        for Failure { index, code } in failures {
            match classify(&self.batch, index, code, alone) {
                FailureClass::Resend if alone => resend_alone.push(index),
                FailureClass::Resend => resend.push(index),
                FailureClass::Retry => {
                    resend.push(index);
                    retry = Some(code);
                }
                FailureClass::Alone => resend_alone.push(index),
                FailureClass::Reject(error @ KafkaWriteError::TooLarge { .. }) => {
                    if self.batch.shrink(index) {
                        telemetry::shrunk(&error, self.batch.message(index).bytes());
                        resend_alone.push(index);
                    } else {
                        self.batch.reject(index, error);
                    }
                }
                FailureClass::Reject(error) => self.batch.reject(index, error),
                FailureClass::Stop(error) => {
                    resend.push(index);
                    stop.get_or_insert(error);
                }
            }
        }
        self.batch.resend(resend);
        self.batch.resend_alone(resend_alone);
        match (stop, retry) {
            (Some(error), _) => Err(error),
            (None, Some(code)) => Err(self.not_acknowledged(self.with_last_error(code.to_string()))),
            (None, None) => Ok(()),
        }
    }

    /// Sends messages one by one, after a request was rejected because of one of its messages.
    async fn send_alone(&self) -> Result<(), KafkaWriteError> {
        let waiting = self.batch.due_alone();
        if waiting == 0 {
            return Ok(());
        }
        let _alone = self.client.alone.write().await;
        telemetry::sent_alone(self.batch.default_topic(), waiting);
        let client = self.usable_client()?;
        while !client.is_idle() {
            sleep(FULL_WAIT).await; // a dropped attempt may have left messages
        }
        while let Some(index) = self.batch.start_alone() {
            match client.send(&self.batch, index) {
                Sent::Accepted => self.batch.settled().await,
                Sent::Full => {
                    self.batch.report(index, Err(RDKafkaErrorCode::PurgeQueue));
                    sleep(FULL_WAIT).await;
                }
                Sent::Rejected(code) => self.batch.report(index, Err(code)),
            }
            self.handle_failures(self.batch.take_failed(), true)?;
        }
        Ok(())
    }

    fn no_report(&self) -> KafkaWriteError {
        self.not_acknowledged(self.with_last_error(format!("no report within {:?}", self.report_timeout)))
    }

    /// The reason, with the client's last error if there is one.
    fn with_last_error(&self, reason: String) -> String {
        match self.client.current().and_then(|client| client.last_error()) {
            Some((_, last)) => format!("{reason}; {last}"),
            None => reason,
        }
    }

    fn not_acknowledged(&self, reason: String) -> KafkaWriteError {
        let (topic, messages) = (self.batch.default_topic().to_owned(), self.batch.unfinished());
        KafkaWriteError::NotAcknowledged { topic, messages, reason }
    }
}

fn rejected_row(Rejected { index, error }: Rejected) -> RejectedRow {
    RejectedRow::new(index, with_code(error.code(), error))
}
