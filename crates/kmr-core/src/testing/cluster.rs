//! The thread that owns librdkafka's mock cluster, which cannot leave the thread that made it.

use std::sync::mpsc;
use std::thread::JoinHandle;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::error::Error;

type Mock = MockCluster<'static, DefaultProducerContext>;
type Request = Box<dyn FnOnce(&Mock) + Send>;

/// A running mock cluster.
#[derive(Debug)]
pub(super) struct ClusterThread {
    pub(super) servers: String,
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl ClusterThread {
    pub(super) fn start(brokers: i32) -> Result<Self, Error> {
        let (requests, inbox) = mpsc::channel::<Request>();
        let (ready, started) = mpsc::sync_channel(1);
        let serve = move || {
            let mock = match MockCluster::new(brokers) {
                Ok(mock) => mock,
                Err(error) => {
                    let _ = ready.send(Err(failed("starting the embedded cluster", &error)));
                    return;
                }
            };
            let _ = ready.send(Ok(mock.bootstrap_servers()));
            for request in inbox {
                request(&mock);
            }
        };
        let thread = std::thread::Builder::new()
            .name("kmr-embedded".to_owned())
            .spawn(serve)
            .map_err(|error| failed("starting the embedded cluster's thread", &error))?;
        let servers = started
            .recv()
            .unwrap_or_else(|_| Err(failed("starting the embedded cluster", &"its thread ended")))?;
        Ok(Self { servers, requests: Some(requests), thread: Some(thread) })
    }

    /// Runs `call` on the cluster's thread and waits for its result.
    pub(super) fn call<T: Send + 'static>(
        &self,
        what: &str,
        call: impl FnOnce(&Mock) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = mpsc::sync_channel(1);
        let request: Request = Box::new(move |mock| {
            let _ = answer.send(call(mock));
        });
        let gone = || failed(what, &"the embedded cluster's thread has ended");
        self.requests.as_ref().and_then(|requests| requests.send(request).ok()).ok_or_else(gone)?;
        answered.recv().map_err(|_| gone())?
    }
}

impl Drop for ClusterThread {
    fn drop(&mut self) {
        self.requests = None; // ends the loop
        if let Some(thread) = self.thread.take() {
            // It ends without a panic, or the call that met its panic has reported it.
            let _ = thread.join();
        }
    }
}

/// An error of this module, as an error of the crate.
pub(super) fn failed(what: &str, reason: &dyn std::fmt::Display) -> Error {
    Error::Client { operation: what.to_owned(), source: reason.to_string().into(), retryable: false }
}
