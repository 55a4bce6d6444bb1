//! Sinks for measurements: one discards its rows, one never acknowledges them.

use std::future::pending;
use std::sync::Mutex;

use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, Delivered, Delivery, DeliveryError, Reducer, async_trait,
};

/// How a probe delivers a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Acknowledges and discards it at once: measures everything but the sink.
    Discard,
    /// Never acknowledges it: shows that nothing is committed, and that memory stays bounded.
    Stall,
}

/// A reducer for rows of any type.
pub(super) struct Probe<T> {
    behaviour: Behaviour,
    options: BatchOptions,
    open: Vec<T>,
}

impl<T> Probe<T> {
    pub(super) fn new(behaviour: Behaviour, options: BatchOptions) -> Self {
        Self { behaviour, options, open: Vec::new() }
    }
}

#[async_trait]
impl<T: Send + 'static> Reducer for Probe<T> {
    type Rows = Vec<T>;
    type Output = ();

    fn options(&self) -> BatchOptions {
        self.options.clone()
    }

    fn new_rows(&self) -> Vec<T> {
        Vec::new()
    }

    fn accept(&mut self, mut chunk: Chunk<Vec<T>>) -> Result<(), BoxError> {
        self.open.append(&mut chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        match self.behaviour {
            Behaviour::Discard => {
                self.open.clear();
                Ok(Box::new(Discarded))
            }
            Behaviour::Stall => Ok(Box::new(Held { _rows: Mutex::new(std::mem::take(&mut self.open)) })),
        }
    }
}

struct Discarded;

#[async_trait]
impl Delivery for Discarded {
    type Output = ();

    async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
        Ok(Delivered::new(()))
    }
}

/// Keeps its rows in memory, as a sink without a response would.
struct Held<T> {
    _rows: Mutex<Vec<T>>, // a Mutex, because rows need not be Sync
}

#[async_trait]
impl<T: Send + 'static> Delivery for Held<T> {
    type Output = ();

    async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
        pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(behaviour: Behaviour) -> Box<dyn Delivery<Output = ()>> {
        let mut probe = Probe::new(behaviour, BatchOptions::default());
        probe.accept(Chunk::new(vec![1, 2, 3], Vec::new())).unwrap();
        probe.freeze().unwrap()
    }

    #[tokio::test]
    async fn a_stalled_probe_never_acknowledges() {
        delivery(Behaviour::Discard).deliver(Attempt::new(1)).await.unwrap();
        let stalled = delivery(Behaviour::Stall);
        let mut delivered = stalled.deliver(Attempt::new(1));
        let polled = std::future::poll_fn(|context| std::task::Poll::Ready(delivered.as_mut().poll(context)));
        assert!(polled.await.is_pending());
    }
}
