//! A reducer for this crate's own tests.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::error::BoxError;
use crate::reducer::{Attempt, BatchOptions, Chunk, Delivered, Delivery, DeliveryError, Reducer};

/// Collects delivered rows, batch by batch.
pub(crate) struct Collect<T> {
    open: Vec<T>,
    pub(crate) options: BatchOptions,
    pub(crate) batches: Arc<Mutex<Vec<Vec<T>>>>,
}

impl<T> Default for Collect<T> {
    fn default() -> Self {
        Self { open: Vec::new(), options: BatchOptions::default(), batches: Arc::default() }
    }
}

#[async_trait]
impl<T: Clone + Send + Sync + 'static> Reducer for Collect<T> {
    type Rows = Vec<T>;
    type Output = usize;

    fn options(&self) -> BatchOptions {
        self.options.clone()
    }

    fn rows(&self) -> Vec<T> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<T>>) -> Result<(), BoxError> {
        self.open.extend(chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> {
        Ok(Box::new(Batch { rows: std::mem::take(&mut self.open), batches: self.batches.clone() }))
    }
}

struct Batch<T> {
    rows: Vec<T>,
    batches: Arc<Mutex<Vec<Vec<T>>>>,
}

#[async_trait]
impl<T: Clone + Send + Sync + 'static> Delivery for Batch<T> {
    type Output = usize;

    async fn deliver(&self, _: Attempt) -> Result<Delivered<usize>, DeliveryError> {
        self.batches.lock().unwrap().push(self.rows.clone());
        Ok(Delivered::new(self.rows.len()))
    }
}
