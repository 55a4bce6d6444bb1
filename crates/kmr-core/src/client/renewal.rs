//! [`Renewal`]: a client with new credentials for a consumer that runs.
//!
//! The files of the configuration are read every [`INTERVAL`]. If they have changed, a client is
//! created from them, and has to find its topics. So half a change, such as a certificate without
//! its key, or a wrong password, does not end the client that works. The new client joins the group
//! after the old one has left it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::open::{OpenOptions, Opened, open};
use crate::credentials::files::FileContents;
use crate::error::Error;
use crate::telemetry;
use crate::util::future::BoxFuture;

/// Time between two reads of the files. Files that change together have this time to do so.
const INTERVAL: Duration = Duration::from_secs(10);

/// The contents that the current client was created from, and the client that comes after it.
#[derive(Clone, Default)]
pub(crate) struct Renewal(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    used: FileContents,
    prepared: Option<Opened>,
}

impl Renewal {
    /// A client, which has found its topics: the one that was prepared, or a new one.
    pub(super) async fn client(&self, options: &OpenOptions) -> Result<Opened, Error> {
        let prepared = self.0.lock().unwrap_or_else(PoisonError::into_inner).prepared.take();
        let opened = match prepared {
            Some(prepared) => prepared,
            None => open(options).await?,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).used = opened.files.clone();
        Ok(opened)
    }

    /// See [`Connector::renewal`](crate::member::Connector::renewal).
    pub(super) fn due(&self, options: &OpenOptions) -> BoxFuture<'static, String> {
        let (renewal, options) = (self.clone(), options.clone());
        Box::pin(async move { renewal.watch(&options, INTERVAL).await })
    }

    async fn watch(&self, options: &OpenOptions, interval: Duration) -> String {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner).used.clone();
        if used.is_empty() {
            return std::future::pending().await;
        }
        let (mut last, mut rejected) = (used.clone(), None);
        loop {
            sleep(interval).await;
            let config = options.config.clone();
            let Ok(now) = spawn_blocking(move || FileContents::read(&config)).await else { continue };
            let changed = now.changed_since(&used).join(", ");
            // Written a moment ago, the files may be incomplete.
            let is_settled = now == last;
            last = now.clone();
            if changed.is_empty() || !is_settled || rejected.as_ref() == Some(&now) {
                continue;
            }
            match open(options).await {
                Ok(opened) => {
                    self.0.lock().unwrap_or_else(PoisonError::into_inner).prepared = Some(opened);
                    return changed;
                }
                Err(error) => {
                    telemetry::credentials_rejected(&changed, &error);
                    // The same contents are tried again only if another attempt may succeed.
                    rejected = (!error.is_retryable()).then_some(now);
                }
            }
        }
    }
}
