//! Turns the process's signals, or a user's future, into wishes to stop.

use std::future::Future;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::error::Error;
use crate::graph::control::StopRequest;

/// Ends the listening when the consumer has ended.
#[must_use]
pub(crate) struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Listens for SIGINT and SIGTERM, each as often as it comes.
#[cfg(unix)]
pub(crate) fn listen(stop: mpsc::UnboundedSender<StopRequest>) -> Result<Listening, Error> {
    use tokio::signal::unix::{SignalKind, signal};

    let failed = |error| Error::Config(format!("signals cannot be listened to: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let task = tokio::spawn(async move {
        loop {
            let request = tokio::select! {
                _ = interrupt.recv() => StopRequest("SIGINT"),
                _ = terminate.recv() => StopRequest("SIGTERM"),
            };
            if stop.send(request).is_err() {
                return;
            }
        }
    });
    Ok(Listening(task.abort_handle()))
}

/// Listens for Ctrl-C, as often as it comes.
#[cfg(not(unix))]
pub(crate) fn listen(stop: mpsc::UnboundedSender<StopRequest>) -> Result<Listening, Error> {
    let task = tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if stop.send(StopRequest("Ctrl-C")).is_err() {
                return;
            }
        }
    });
    Ok(Listening(task.abort_handle()))
}

/// Waits for the user's own signal.
pub(crate) fn follow(
    signal: impl Future<Output = ()> + Send + 'static,
    stop: mpsc::UnboundedSender<StopRequest>,
) -> Listening {
    let task = tokio::spawn(async move {
        signal.await;
        let _ = stop.send(StopRequest("its shutdown signal"));
    });
    Listening(task.abort_handle())
}
