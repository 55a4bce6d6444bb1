//! The client that all deliveries of a writer share, and its replacement.
//!
//! librdkafka cannot withdraw a single message. A purge of an idempotent producer's queue leaves a
//! gap in its sequence, and the broker rejects what follows. So messages that must not be sent any
//! more are dropped together with their client.
//!
//! A client whose credentials have changed is not closed but retired: it sends what it has, and new
//! messages go to the next client.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kmr_core::__private::{Credentials, FileContents, LiveClients};
use kmr_core::ClientConfig;
use tokio::sync::RwLock;
use tokio::time::sleep;

use super::client::Client;
use super::config::effective;
use super::error::KafkaWriteError;
use super::startup::{Check, check};
use super::telemetry;

/// Interval of the client's maintenance.
const MAINTENANCE: Duration = Duration::from_millis(500);
/// Time between two reads of the configuration's files. Files that change together have this
/// time to do so.
const FILES: Duration = Duration::from_secs(10);

/// The current client of a writer.
pub(super) struct SharedClient {
    config: ClientConfig,
    check: Check,
    current: Mutex<Option<Arc<Client>>>,
    /// Clients that send what they have.
    retired: Mutex<Vec<Arc<Client>>>,
    files: tokio::sync::Mutex<Files>,
    live: LiveClients,
    /// Deliveries hold it shared. A message that must be alone in its request holds it exclusively.
    pub(super) alone: RwLock<()>,
}

/// The files of the configuration.
struct Files {
    looked: Instant,
    /// The contents that the current client was created from, or that do not work.
    used: FileContents,
    /// The contents when they were read last.
    last: FileContents,
}

impl SharedClient {
    pub(super) fn new(config: ClientConfig, check: Check) -> Self {
        let used = FileContents::read(&config);
        let files = Files { looked: Instant::now(), used: used.clone(), last: used };
        Self {
            config,
            check,
            current: Mutex::new(None),
            retired: Mutex::default(),
            files: tokio::sync::Mutex::new(files),
            live: LiveClients::default(),
            alone: RwLock::new(()),
        }
    }

    /// Creates the first client and checks the topic. Returns the id of the cluster, if the brokers
    /// have one.
    pub(super) async fn start(&self) -> Result<Option<String>, KafkaWriteError> {
        let credentials = Credentials::start(&self.config, self.check.timeout).await;
        let credentials = credentials.map_err(|error| KafkaWriteError::Client {
            what: "the start-up check",
            reason: kmr_core::error_chain(&error),
        })?;
        let client = self.create(credentials)?;
        *self.lock() = Some(client.clone());
        check(client, self.check.clone()).await
    }

    /// The current client; creates one if there is none.
    pub(super) fn get(&self) -> Result<Arc<Client>, KafkaWriteError> {
        let mut current = self.lock();
        if let Some(client) = &*current {
            return Ok(client.clone());
        }
        let client = self.create(Credentials::subscribe(&self.config))?;
        *current = Some(client.clone());
        Ok(client)
    }

    fn create(&self, credentials: Credentials) -> Result<Arc<Client>, KafkaWriteError> {
        let settings = effective(&self.config, self.check.auto_create)?;
        Ok(Arc::new(Client::new(&settings, credentials, self.live.count())?))
    }

    /// The current client, if there is one.
    pub(super) fn current(&self) -> Option<Arc<Client>> {
        self.lock().clone()
    }

    /// Closes `client`, if it is the current one. Its unsent messages are reported as failed.
    pub(super) fn replace(&self, client: &Arc<Client>, why: &str) {
        let mut current = self.lock();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, client)) {
            telemetry::replaced(&self.check.topic, why);
            *current = None;
        }
    }

    /// If files of the configuration have changed, creates a client from them, and uses it once it
    /// has found the topic. To be called before messages are sent.
    ///
    /// # Cancel safety
    /// The next call looks at the files again.
    pub(super) async fn renew_if_due(&self) {
        // Another delivery looks already.
        let Ok(mut files) = self.files.try_lock() else { return };
        if files.used.is_empty() || files.looked.elapsed() < FILES {
            return;
        }
        files.looked = Instant::now();
        let now = FileContents::read(&self.config);
        let is_settled = now == files.last;
        files.last = now.clone();
        let changed = now.changed_since(&files.used).join(", ");
        if changed.is_empty() || !is_settled {
            return;
        }
        let renewed = async {
            let client = self.create(Credentials::subscribe(&self.config))?;
            check(client.clone(), Check { timeout: FILES, ..self.check.clone() }).await?;
            Ok::<_, KafkaWriteError>(client)
        };
        match renewed.await {
            Ok(client) => {
                files.used = now;
                telemetry::renewed(&self.check.topic, &changed);
                let before = self.lock().replace(client);
                self.lock_retired().extend(before);
            }
            Err(error) => {
                telemetry::not_renewed(&self.check.topic, &changed, &error);
                // The same contents are tried again only if another attempt may succeed.
                if !error.is_retryable() {
                    files.used = now;
                }
            }
        }
    }

    /// Maintains the clients, for as long as the future is polled.
    pub(super) async fn maintain(&self) -> Infallible {
        loop {
            sleep(MAINTENANCE).await;
            if let Some(client) = self.current() {
                client.maintain();
            }
            let mut retired = self.lock_retired();
            retired.iter().for_each(|client| client.maintain());
            retired.retain(|client| !client.is_idle());
        }
    }

    /// Closes the clients. Waits until they are destroyed, for `limit` at most, because the process
    /// may end next.
    pub(super) async fn close(&self, limit: Duration) {
        *self.lock() = None;
        self.lock_retired().clear();
        self.live.destroyed(limit).await;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Client>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_retired(&self) -> MutexGuard<'_, Vec<Arc<Client>>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_client_is_destroyed() {
        let config = ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1");
        let check = Check {
            topic: "t".into(),
            servers: "127.0.0.1:1".to_owned(),
            timeout: Duration::from_secs(1),
            auto_create: false,
        };
        let shared = SharedClient::new(config, check);
        drop(shared.get().unwrap());
        assert!(!shared.live.destroyed(Duration::ZERO).await);
        shared.close(Duration::MAX).await;
        assert!(shared.live.destroyed(Duration::ZERO).await);
    }
}
