//! Reducers in place of a sink: one drops its rows, one measures their age, and one never ends its
//! deliveries.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, Delivered, Delivery, DeliveryError, Reducer, async_trait,
};
use serde::{Deserialize, Serialize};

use crate::shared::job::{BATCH_AGE, BATCH_ROWS};
use crate::shared::rows::Seen;

fn options() -> BatchOptions {
    BatchOptions::default().with_max_rows(BATCH_ROWS).with_max_age(BATCH_AGE)
}

/// Drops rows as they arrive, and acknowledges every batch at once.
pub(super) struct Drop<T>(PhantomData<fn() -> T>);

impl<T> Drop<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

#[async_trait]
impl<T: Send + 'static> Reducer for Drop<T> {
    type Rows = Vec<T>;
    type Output = ();

    fn options(&self) -> BatchOptions {
        options()
    }

    fn new_rows(&self) -> Vec<T> {
        Vec::new()
    }

    fn accept(&mut self, _: Chunk<Vec<T>>) -> Result<(), BoxError> {
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        Ok(Box::new(Dropped))
    }
}

struct Dropped;

#[async_trait]
impl Delivery for Dropped {
    type Output = ();

    async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
        Ok(Delivered::new(()))
    }
}

/// Number of rows by their age in milliseconds at the reducer. The last entry has all older ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ages(Vec<u64>);

impl Ages {
    pub(super) fn new() -> Self {
        Self(vec![0; 60_001])
    }

    fn note(&mut self, millis: i64) {
        let index = usize::try_from(millis).unwrap_or(0).min(self.0.len() - 1);
        self.0[index] += 1;
    }

    /// The age in milliseconds that this ratio of the rows does not exceed.
    pub(crate) fn percentile(&self, ratio: f64) -> usize {
        let wanted = ratio * self.0.iter().sum::<u64>() as f64;
        let mut seen = 0;
        let age = self.0.iter().position(|count| {
            seen += count;
            seen as f64 >= wanted
        });
        age.unwrap_or(self.0.len() - 1)
    }
}

/// The timestamp of records whose age does not count. With 0 the producer would set the current
/// time.
pub(crate) const UNTIMED: i64 = 1;

/// A row, and the timestamp of its record in milliseconds since 1970.
pub(super) struct Timed {
    pub(super) row: Seen,
    pub(super) produced: i64,
}

/// Measures each row's age, and keeps the rows of a batch as a sink would.
pub(super) struct MeasureAges {
    rows: Vec<Seen>,
    ages: Arc<Mutex<Ages>>,
}

impl MeasureAges {
    pub(super) fn new(ages: Arc<Mutex<Ages>>) -> Self {
        Self { rows: Vec::new(), ages }
    }

    fn ages(&self) -> MutexGuard<'_, Ages> {
        self.ages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Reducer for MeasureAges {
    type Rows = Vec<Timed>;
    type Output = ();

    fn options(&self) -> BatchOptions {
        options()
    }

    fn new_rows(&self) -> Vec<Timed> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<Timed>>) -> Result<(), BoxError> {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        let mut ages = self.ages();
        let timed = chunk.rows.iter().filter(|timed| timed.produced != UNTIMED);
        timed.for_each(|timed| ages.note(now - timed.produced));
        drop(ages);
        self.rows.extend(chunk.rows.into_iter().map(|timed| timed.row));
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        self.rows.clear();
        Ok(Box::new(Dropped))
    }
}

/// A stalled sink, with rows that hold their records' payloads.
pub(super) struct Stall(Vec<Vec<u8>>);

impl Stall {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }
}

#[async_trait]
impl Reducer for Stall {
    type Rows = Vec<Vec<u8>>;
    type Output = ();

    fn options(&self) -> BatchOptions {
        options()
    }

    fn new_rows(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn accept(&mut self, mut chunk: Chunk<Vec<Vec<u8>>>) -> Result<(), BoxError> {
        self.0.append(&mut chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        Ok(Box::new(Stalled { _rows: std::mem::take(&mut self.0) }))
    }
}

struct Stalled {
    _rows: Vec<Vec<u8>>,
}

#[async_trait]
impl Delivery for Stalled {
    type Output = ();

    async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
        std::future::pending().await
    }
}
