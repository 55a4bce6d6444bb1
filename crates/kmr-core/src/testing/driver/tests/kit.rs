//! A sink of the driver's tests, for rows that cannot be cloned, such as dead letters.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::BoxError;
use crate::record::Record;
use crate::reducer::{Attempt, BatchOptions, Chunk, Delivered, Delivery, DeliveryError, Reducer};
use crate::testing::NewRecord;

/// A record with this payload.
pub(super) fn payload(partition: i32, text: &str) -> NewRecord {
    NewRecord::new(partition).with_payload(text)
}

/// The payload as text. Fails if it is not UTF-8.
pub(super) fn text(record: &Record<'_>) -> Result<String, std::str::Utf8Error> {
    Ok(std::str::from_utf8(record.payload().unwrap_or_default())?.to_owned())
}

/// Keeps delivered rows, and fails attempts on demand. Clones share the rows.
pub(super) struct Sink<T> {
    options: BatchOptions,
    starts: bool,
    open: Vec<T>,
    delivered: Arc<Mutex<Deliveries<T>>>,
}

struct Deliveries<T> {
    rows: Vec<T>,
    attempts: usize,
    failures_left: usize,
}

impl<T> Clone for Sink<T> {
    fn clone(&self) -> Self {
        let (options, delivered) = (self.options.clone(), self.delivered.clone());
        Self { options, starts: self.starts, open: Vec::new(), delivered }
    }
}

impl<T> Sink<T> {
    pub(super) fn new(max_age: Duration) -> Self {
        let options = BatchOptions::default().with_max_age(max_age);
        let delivered = Deliveries { rows: Vec::new(), attempts: 0, failures_left: 0 };
        Self { options, starts: true, open: Vec::new(), delivered: Arc::new(Mutex::new(delivered)) }
    }

    pub(super) fn that_does_not_start(self) -> Self {
        Self { starts: false, ..self }
    }

    /// Makes the next attempts fail with a retryable error.
    pub(super) fn fail_next(&self, attempts: usize) {
        self.delivered.lock().unwrap().failures_left = attempts;
    }

    pub(super) fn attempts(&self) -> usize {
        self.delivered.lock().unwrap().attempts
    }

    /// Removes and returns the delivered rows.
    pub(super) fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.delivered.lock().unwrap().rows)
    }
}

#[async_trait]
impl<T: Send + 'static> Reducer for Sink<T> {
    type Rows = Vec<T>;
    type Output = ();

    fn options(&self) -> BatchOptions {
        self.options.clone()
    }

    async fn start(&mut self) -> Result<(), BoxError> {
        self.starts.then_some(()).ok_or_else(|| "the table does not exist".into())
    }

    fn new_rows(&self) -> Vec<T> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<T>>) -> Result<(), BoxError> {
        self.open.extend(chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        let rows = Mutex::new(std::mem::take(&mut self.open));
        Ok(Box::new(Batch { rows, delivered: self.delivered.clone() }))
    }
}

struct Batch<T> {
    rows: Mutex<Vec<T>>,
    delivered: Arc<Mutex<Deliveries<T>>>,
}

#[async_trait]
impl<T: Send + 'static> Delivery for Batch<T> {
    type Output = ();

    async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
        let mut delivered = self.delivered.lock().unwrap();
        delivered.attempts += 1;
        if delivered.failures_left > 0 {
            delivered.failures_left -= 1;
            return Err(DeliveryError::retryable("unavailable"));
        }
        delivered.rows.append(&mut self.rows.lock().unwrap());
        Ok(Delivered::new(()))
    }
}
