//! The client that all deliveries of a writer share, and its replacement.
//!
//! librdkafka cannot withdraw a single message. A purge of an idempotent producer's queue leaves a
//! gap in its sequence, and the broker rejects what follows. So messages that must not be sent any
//! more are dropped together with their client.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kmr_core::__private::LiveClients;
use tokio::sync::RwLock;
use tokio::time::sleep;

use super::client::Client;
use super::error::KafkaWriteError;
use super::telemetry;

/// Interval of the client's maintenance.
const MAINTENANCE: Duration = Duration::from_millis(500);

/// The current client of a writer.
pub(super) struct SharedClient {
    topic: Arc<str>,
    settings: BTreeMap<String, String>,
    current: Mutex<Option<Arc<Client>>>,
    live: LiveClients,
    /// Deliveries hold it shared. A message that must be alone in its request holds it exclusively.
    pub(super) alone: RwLock<()>,
}

impl SharedClient {
    pub(super) fn new(topic: Arc<str>, settings: BTreeMap<String, String>) -> Self {
        Self {
            topic,
            settings,
            current: Mutex::new(None),
            live: LiveClients::default(),
            alone: RwLock::new(()),
        }
    }

    /// The current client; creates one if there is none.
    pub(super) fn get(&self) -> Result<Arc<Client>, KafkaWriteError> {
        let mut current = self.lock();
        if let Some(client) = &*current {
            return Ok(client.clone());
        }
        let client = Arc::new(Client::new(&self.settings, self.live.count())?);
        *current = Some(client.clone());
        Ok(client)
    }

    /// The current client, if there is one.
    pub(super) fn current(&self) -> Option<Arc<Client>> {
        self.lock().clone()
    }

    /// Closes `client`, if it is the current one. Its unsent messages are reported as failed.
    pub(super) fn replace(&self, client: &Arc<Client>, why: &str) {
        let mut current = self.lock();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, client)) {
            telemetry::replaced(&self.topic, why);
            *current = None;
        }
    }

    /// Maintains the current client, for as long as the future is polled.
    pub(super) async fn maintain(&self) -> Infallible {
        loop {
            sleep(MAINTENANCE).await;
            if let Some(client) = self.current() {
                client.maintain();
            }
        }
    }

    /// Closes the client. Waits until it is destroyed, for `limit` at most, because the process may
    /// end next.
    pub(super) async fn close(&self, limit: Duration) {
        *self.lock() = None;
        self.live.destroyed(limit).await;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Client>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_client_is_destroyed() {
        let settings = BTreeMap::from([("bootstrap.servers".to_owned(), "127.0.0.1:1".to_owned())]);
        let shared = SharedClient::new("t".into(), settings);
        drop(shared.get().unwrap());
        assert!(!shared.live.destroyed(Duration::ZERO).await);
        shared.close(Duration::MAX).await;
        assert!(shared.live.destroyed(Duration::ZERO).await);
    }
}
