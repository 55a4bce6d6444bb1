//! The way into the running graph: wishes of signals, handles and tests, as messages to the coordinator.

use tokio::sync::mpsc;

/// A wish to stop. The first ends the consumer in order, a second one at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopRequest(pub(crate) &'static str);

/// The sending half.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) stop: mpsc::UnboundedSender<StopRequest>,
}

/// The graph's half.
#[derive(Debug)]
pub(crate) struct Controls {
    pub(crate) stops: mpsc::UnboundedReceiver<StopRequest>,
}

/// Both halves, connected.
pub(crate) fn controls() -> (Remote, Controls) {
    let (stop, stops) = mpsc::unbounded_channel();
    (Remote { stop }, Controls { stops })
}
