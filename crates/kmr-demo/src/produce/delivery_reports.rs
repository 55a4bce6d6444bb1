//! Acknowledgements of produced messages, and what the client says when something is wrong.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

/// Shared with the client's callbacks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Receipts(Arc<State>);

#[derive(Debug, Default)]
struct State {
    acknowledged: AtomicU64,
    failure: Mutex<Option<KafkaError>>,
    reason: Mutex<Option<String>>,
}

impl Receipts {
    pub(crate) fn acknowledged(&self) -> u64 {
        self.0.acknowledged.load(Ordering::Relaxed)
    }

    /// Fails if a message was not delivered.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let failure = self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match failure {
            None => Ok(()),
            Some(error) => Err(anyhow::Error::new(error).context("a message was not delivered")),
        }
    }

    /// The client's own words for the trouble that it is in.
    pub(crate) fn reason(&self) -> Option<String> {
        self.0.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Receipts {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, "{line}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut kept = self.0.reason.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" follows what says why.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) || kept.is_none() {
            *kept = Some(reason.to_owned());
        }
    }
}

impl ProducerContext for Receipts {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.0.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                let mut first = self.0.failure.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| error.clone());
            }
        }
    }
}
