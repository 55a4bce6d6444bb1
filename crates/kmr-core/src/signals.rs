//! Turns the process's signals, or a user's future, into wishes to stop.

use std::future::Future;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::error::Error;
use crate::graph::control::StopRequest;
#[cfg(unix)]
use crate::util::panic::panic_message;

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
    use tokio::signal::unix::SignalKind;

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
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

/// Tokio panics in a runtime that has no driver for I/O, and cannot be asked whether it has one.
#[cfg(unix)]
fn signal(kind: tokio::signal::unix::SignalKind) -> Result<tokio::signal::unix::Signal, Error> {
    let listened = std::panic::catch_unwind(|| tokio::signal::unix::signal(kind));
    let listened = listened.map_err(|panic| {
        Error::Config(format!(
            "signals cannot be listened to in this Tokio runtime ({}); build it with enable_all(), or give the consumer a \
             shutdown_signal of its own",
            panic_message(&*panic)
        ))
    })?;
    listened.map_err(|error| Error::Config(format!("signals cannot be listened to: {error}")))
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_cannot_listen_to_signals_is_named_in_place_of_a_panic() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (stop, _stops) = mpsc::unbounded_channel();
        let error = runtime.block_on(async { listen(stop).err() }).unwrap();
        let text = error.to_string();
        assert!(matches!(error, Error::Config(_)) && text.contains("enable_all"), "{text}");
    }
}
