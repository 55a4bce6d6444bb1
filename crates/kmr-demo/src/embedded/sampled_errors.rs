//! The demo's error stage: counts every dead letter and shows the first few.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, DeadLetter, Delivered, Delivery, DeliveryError, Reducer,
    async_trait,
};

use super::console::Console;
use super::tally::Arrivals;

/// Number of dead letters that are shown.
const SHOWN: u64 = 5;

/// The reducer.
pub(crate) struct SampledErrors {
    open: Vec<DeadLetter>,
    sink: Arc<Sink>,
}

struct Sink {
    arrivals: Arc<Arrivals>,
    console: Arc<Console>,
    seen: AtomicU64,
}

impl SampledErrors {
    pub(crate) fn new(arrivals: Arc<Arrivals>, console: Arc<Console>) -> Self {
        Self { open: Vec::new(), sink: Arc::new(Sink { arrivals, console, seen: AtomicU64::new(0) }) }
    }
}

#[async_trait]
impl Reducer for SampledErrors {
    type Rows = Vec<DeadLetter>;
    type Output = ();

    fn options(&self) -> BatchOptions {
        BatchOptions::default().with_max_age(Duration::from_millis(25))
    }

    fn new_rows(&self) -> Vec<DeadLetter> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<DeadLetter>>) -> Result<(), BoxError> {
        self.open.extend(chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        Ok(Box::new(Batch { dead_letters: std::mem::take(&mut self.open), sink: self.sink.clone() }))
    }
}

struct Batch {
    dead_letters: Vec<DeadLetter>,
    sink: Arc<Sink>,
}

#[async_trait]
impl Delivery for Batch {
    type Output = ();

    async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
        for dead_letter in &self.dead_letters {
            let partition = dead_letter.partition.partition();
            self.sink
                .arrivals
                .add_dead_letter(partition, dead_letter.offset)
                .map_err(DeliveryError::fatal)?;
            match self.sink.seen.fetch_add(1, Ordering::Relaxed) {
                seen if seen < SHOWN => self.sink.console.line(&format!("dead letter: {dead_letter}")),
                SHOWN => self.sink.console.line("further dead letters are counted, not shown"),
                _ => {}
            }
        }
        Ok(Delivered::new(()))
    }
}
