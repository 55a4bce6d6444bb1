//! For this crate's own tests: a reducer that collects deliveries, and stalls, fails or rejects on
//! demand, and a container that breaks its contract.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::BoxError;
use crate::reducer::{
    Attempt, BatchOptions, Block, Chunk, Delivered, Delivery, DeliveryError, Fingerprint, Reducer,
    RejectedRow, Rows,
};

/// The reaction of the sink to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Deliver,
    /// Waits until the behaviour changes.
    Stall,
    /// Takes this long for each batch.
    Slow(Duration),
    FailPermanently,
    Panic,
}

/// Collects delivered rows, batch by batch. Clones share one collection.
pub(crate) struct Collect<T> {
    open: Vec<T>,
    options: BatchOptions,
    rejects: fn(&T) -> bool,
    /// The text of a row, if it offers exactly-once delivery.
    text: Option<fn(&T) -> String>,
    sink: Arc<Sink<T>>,
}

struct Sink<T> {
    batches: Mutex<Vec<Vec<T>>>,
    blocks: Mutex<Vec<Block>>,
    behaviour: watch::Sender<Behaviour>,
}

impl<T> Clone for Collect<T> {
    fn clone(&self) -> Self {
        Self {
            open: Vec::new(),
            options: self.options.clone(),
            rejects: self.rejects,
            text: self.text,
            sink: self.sink.clone(),
        }
    }
}

impl<T> Default for Collect<T> {
    fn default() -> Self {
        let (behaviour, _) = watch::channel(Behaviour::Deliver);
        let sink = Arc::new(Sink { batches: Mutex::default(), blocks: Mutex::default(), behaviour });
        let options = BatchOptions::default().with_max_age(Duration::from_millis(100));
        Self { open: Vec::new(), options, rejects: |_| false, text: None, sink }
    }
}

impl<T: Clone> Collect<T> {
    pub(crate) fn with_options(mut self, change: impl FnOnce(BatchOptions) -> BatchOptions) -> Self {
        self.options = change(self.options);
        self
    }

    pub(crate) fn rejecting(mut self, rejects: fn(&T) -> bool) -> Self {
        self.rejects = rejects;
        self
    }

    /// Offers exactly-once delivery. The texts of rows make up the fingerprint.
    pub(crate) fn exactly_once(mut self, text: fn(&T) -> String) -> Self {
        self.text = Some(text);
        self
    }

    /// The planned blocks that were delivered.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        self.sink.blocks.lock().unwrap().clone()
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        self.sink.behaviour.send_replace(behaviour);
    }

    /// Delivered rows, batch by batch.
    pub(crate) fn batches(&self) -> Vec<Vec<T>> {
        self.sink.batches.lock().unwrap().clone()
    }

    /// Delivered rows.
    pub(crate) fn rows(&self) -> Vec<T> {
        self.batches().concat()
    }
}

#[async_trait]
impl<T: Clone + Send + Sync + 'static> Reducer for Collect<T> {
    type Rows = Vec<T>;
    type Output = usize;

    fn options(&self) -> BatchOptions {
        self.options.clone()
    }

    async fn start_exactly_once(&mut self) -> Result<(), BoxError> {
        self.text.map(drop).ok_or_else(|| "not offered".into())
    }

    fn new_rows(&self) -> Vec<T> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<T>>) -> Result<(), BoxError> {
        self.open.extend(chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
        let rows = std::mem::take(&mut self.open);
        Ok(Box::new(Batch { rows, rejects: self.rejects, text: self.text, sink: self.sink.clone() }))
    }
}

struct Batch<T> {
    rows: Vec<T>,
    rejects: fn(&T) -> bool,
    text: Option<fn(&T) -> String>,
    sink: Arc<Sink<T>>,
}

#[async_trait]
impl<T: Clone + Send + Sync + 'static> Delivery for Batch<T> {
    type Output = usize;

    fn fingerprint(&self) -> Option<Fingerprint> {
        let text: String = self.rows.iter().map(self.text?).collect();
        let hash = text.bytes().fold(7_u128, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        Some(Fingerprint { rows: self.rows.len() as u64, bytes: text.len() as u64, hash })
    }

    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<usize>, DeliveryError> {
        let mut behaviour = self.sink.behaviour.subscribe();
        let now = *behaviour.wait_for(|now| *now != Behaviour::Stall).await.map_err(DeliveryError::fatal)?;
        match now {
            Behaviour::FailPermanently => return Err(DeliveryError::fatal("the table is gone")),
            Behaviour::Panic => panic!("the sink panics"),
            Behaviour::Slow(time) => tokio::time::sleep(time).await,
            Behaviour::Deliver | Behaviour::Stall => {}
        }
        let (mut rejected, mut stored) = (Vec::new(), Vec::new());
        let excluded = attempt.block.as_ref().map_or(&[][..], |block| &block.excluded_rows);
        for (index, row) in self.rows.iter().enumerate().filter(|(index, _)| !excluded.contains(index)) {
            if (self.rejects)(row) {
                rejected.push(RejectedRow { index, error: "rejected".into() });
            } else {
                stored.push(row.clone());
            }
        }
        if attempt.block.is_some() && !rejected.is_empty() {
            return Err(DeliveryError::rejected(rejected));
        }
        self.sink.batches.lock().unwrap().push(stored);
        self.sink.blocks.lock().unwrap().extend(attempt.block);
        Ok(Delivered { output: self.rows.len() - rejected.len(), rejected })
    }
}

/// Counts another number of rows than one for a push.
#[derive(Debug)]
pub(crate) struct Miscounting<T> {
    rows: usize,
    rows_per_push: usize,
    row: PhantomData<T>,
}

impl<T> Miscounting<T> {
    pub(crate) fn new(rows_per_push: usize) -> Self {
        Self { rows: 0, rows_per_push, row: PhantomData }
    }
}

impl<T: Send + 'static> Rows for Miscounting<T> {
    type Item = T;

    fn new_empty(&self) -> Self {
        Self::new(self.rows_per_push)
    }

    fn push(&mut self, _: T) -> Result<(), BoxError> {
        self.rows += self.rows_per_push;
        Ok(())
    }

    fn len(&self) -> usize {
        self.rows
    }

    fn bytes(&self) -> usize {
        self.rows
    }

    fn truncate(&mut self, len: usize) {
        self.rows = len;
    }

    fn split_off(&mut self, at: usize) -> Self {
        let split = Self { rows: self.rows - at, ..Self::new(self.rows_per_push) };
        self.rows = at;
        split
    }
}
