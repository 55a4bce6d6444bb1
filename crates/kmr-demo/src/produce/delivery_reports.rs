//! Delivery reports of produced messages, and failures that the client reports.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kmr_cli_support::kafka::ClientFailure;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

/// Shared with the client's callbacks.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeliveryReports(Arc<State>);

#[derive(Debug, Default)]
struct State {
    acknowledged: AtomicU64,
    undelivered: Mutex<Option<KafkaError>>,
    client: ClientFailure,
}

impl DeliveryReports {
    pub(crate) fn acknowledged(&self) -> u64 {
        self.0.acknowledged.load(Ordering::Relaxed)
    }

    /// Fails if a message was not delivered.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let undelivered = self.0.undelivered.lock().unwrap_or_else(PoisonError::into_inner).take();
        match undelivered {
            None => Ok(()),
            Some(error) => Err(anyhow::Error::new(error).context("a message was not delivered")),
        }
    }

    /// The last failure that the client reported.
    pub(crate) fn reason(&self) -> Option<String> {
        self.0.client.reason()
    }
}

impl ClientContext for DeliveryReports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, "{line}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.client.record(&error, reason);
    }
}

impl ProducerContext for DeliveryReports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.0.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                let mut first = self.0.undelivered.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| error.clone());
            }
        }
    }
}
