//! Turns the process's signals, or a user's future, into stop requests.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::error::Error;
use crate::graph::control::StopRequest;
#[cfg(unix)]
use crate::util::panic::panic_message;

/// Stops listening when the consumer has ended.
#[must_use]
pub(crate) struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The signals that a consumer has received. Only signals count: after a stop request of the
/// handle, the first signal does not force the end.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// The last one that counted.
    last: Option<(&'static str, Instant)>,
}

/// The same signal within this time counts once. `timeout -s INT` and others signal a process and
/// then its group, and a person who wants to force the end waits for an effect first.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

impl Signals {
    /// The stop request for a signal that was received now. The first signal ends the consumer in
    /// order, and every later one ends it at once. `None`: it repeats the one before it.
    pub(crate) fn request(&mut self, signal: &'static str, now: Instant) -> Option<StopRequest> {
        let repeats = |(last, at): (&'static str, Instant)| {
            last == signal && now.saturating_duration_since(at) < SAME_SIGNAL
        };
        if self.last.is_some_and(repeats) {
            return None;
        }
        Some(match self.last.replace((signal, now)) {
            Some(_) => StopRequest::forced(signal),
            None => StopRequest::in_order(signal),
        })
    }
}

/// Listens for SIGINT and SIGTERM, any number of times.
#[cfg(unix)]
pub(crate) fn listen(stop: mpsc::UnboundedSender<StopRequest>) -> Result<Listening, Error> {
    use tokio::signal::unix::SignalKind;

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let task = tokio::spawn(async move {
        let mut signals = Signals::default();
        loop {
            let signal = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
            let request = signals.request(signal, Instant::now());
            if request.is_some_and(|request| stop.send(request).is_err()) {
                return;
            }
        }
    });
    Ok(Listening(task.abort_handle()))
}

/// Tokio panics in a runtime without an I/O driver, and offers no way to check for one.
#[cfg(unix)]
fn signal(kind: tokio::signal::unix::SignalKind) -> Result<tokio::signal::unix::Signal, Error> {
    let listened = std::panic::catch_unwind(|| tokio::signal::unix::signal(kind));
    let listened = listened.map_err(|panic| {
        Error::Config(format!(
            "this Tokio runtime cannot listen to signals ({}); build it with enable_all(), or give the \
             consumer a shutdown_signal of its own",
            panic_message(&*panic)
        ))
    })?;
    listened.map_err(|error| Error::Config(format!("cannot listen to signals: {error}")))
}

/// Listens for Ctrl-C, any number of times.
#[cfg(not(unix))]
pub(crate) fn listen(stop: mpsc::UnboundedSender<StopRequest>) -> Result<Listening, Error> {
    let task = tokio::spawn(async move {
        let mut signals = Signals::default();
        while tokio::signal::ctrl_c().await.is_ok() {
            let request = signals.request("Ctrl-C", Instant::now());
            if request.is_some_and(|request| stop.send(request).is_err()) {
                return;
            }
        }
    });
    Ok(Listening(task.abort_handle()))
}

/// Waits for the user's own signal. It resolves once, so it never forces.
pub(crate) fn follow(
    signal: impl Future<Output = ()> + Send + 'static,
    stop: mpsc::UnboundedSender<StopRequest>,
) -> Listening {
    let task = tokio::spawn(async move {
        signal.await;
        let _ = stop.send(StopRequest::in_order("the shutdown signal"));
    });
    Listening(task.abort_handle())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn runtime_that_cannot_listen_to_signals_is_an_error_and_not_a_panic() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (stop, _stops) = mpsc::unbounded_channel();
        let error = runtime.block_on(async { listen(stop).err() }).unwrap();
        let text = error.to_string();
        assert!(matches!(error, Error::Config(_)) && text.contains("enable_all"), "{text}");
    }
}
