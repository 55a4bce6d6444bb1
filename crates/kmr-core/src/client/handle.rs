//! [`ClientRef`]: a reference to the client, and the way to its control thread.

use std::sync::{Arc, mpsc};

use tokio::sync::oneshot;

use super::context::Client;
use super::errors::retryable;
use crate::error::Error;

/// A call that runs on the control thread.
pub(super) type Job = Box<dyn FnOnce(&Client) + Send>;

/// A reference to the client, with a sender to the control thread that owns it. Dropping the client
/// blocks, so the control thread does it when the last reference is gone.
#[derive(Clone)]
pub(super) struct ClientRef {
    // First: when the last sender is dropped and the control thread ends, no other reference to the
    // client may be left.
    client: Arc<Client>,
    jobs: mpsc::Sender<Job>,
}

impl ClientRef {
    pub(super) fn new(client: Arc<Client>, jobs: mpsc::Sender<Job>) -> Self {
        Self { client, jobs }
    }

    /// The client.
    pub(super) fn get(&self) -> &Client {
        &self.client
    }

    /// Makes a blocking call on the control thread and does not wait for it.
    pub(super) fn spawn_call(&self, call: impl FnOnce(&Client) + Send + 'static) {
        // Without a control thread there is no client to call.
        let _ = self.jobs.send(Box::new(call));
    }

    /// Makes a blocking call on the control thread. Dropping the future does not cancel the call.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        what: &str,
        call: impl FnOnce(&Client) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, reply) = oneshot::channel();
        self.spawn_call(move |client| drop(sender.send(call(client))));
        reply.await.map_err(|_| retryable(what, "the call ended without a result"))
    }
}
