//! A reducer that sends each row to one of two reducers, by its value.
//!
//! Invariants:
//! 1. The rows of a batch keep one order across both sides: the index of a rejected row is its
//!    index in the whole batch.
//! 2. A later attempt does not deliver a side again that was delivered before.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::future::join;

use crate::error::BoxError;
use crate::record::Record;
use crate::reducer::{
    Attempt, BatchOptions, Chunk, Delivered, Delivery, DeliveryError, PartialBatch, Reducer, RejectedRow,
    Rows, TargetTopic,
};

/// One of two values. In a [`Fork`]: a row with its reducer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<L, R> {
    /// To the first reducer.
    Left(L),
    /// To the second reducer.
    Right(R),
}

type Split<T, L, R> = Arc<dyn Fn(T) -> Either<L, R> + Send + Sync>;

/// A reducer that sends each row to one of two reducers, by its value: a table for each type of
/// record, for example. For more than two, one side is a `Fork` itself.
///
/// One batch holds the rows of both sides. It is due by the stricter limits of the two. Its records
/// are finished when both sides are delivered. Both are delivered at the same time. If one side is
/// retried, the other one is not delivered again.
///
/// # Examples
/// ```
/// use kmr_core::{Fork, Reducer, Either};
///
/// enum Event {
///     Ordered { id: u32 },
///     Shipped { id: u32, by: String },
/// }
///
/// fn route<A, B>(orders: A, shipments: B) -> impl Reducer
/// where
///     A: Reducer<Rows = Vec<u32>>,
///     B: Reducer<Rows = Vec<(u32, String)>>,
/// {
///     Fork::new(orders, shipments, |event: Event| match event {
///         Event::Ordered { id } => Either::Left(id),
///         Event::Shipped { id, by } => Either::Right((id, by)),
///     })
/// }
/// ```
pub struct Fork<T, A: Reducer, B: Reducer> {
    left: A,
    right: B,
    split: Split<T, Item<A>, Item<B>>,
    /// For each row of the open batch, whether it went to the second reducer.
    open: Vec<bool>,
}

type Item<R> = <<R as Reducer>::Rows as Rows>::Item;

/// The output of a delivered batch of a [`Fork`]. `None` for a side without rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForkOutput<L, R> {
    /// The output of the first reducer.
    pub left: Option<L>,
    /// The output of the second reducer.
    pub right: Option<R>,
}

impl<T, A: Reducer, B: Reducer> Fork<T, A, B> {
    /// Sends each row to the side that `split` returns. `split` runs in the map tasks, in parallel.
    pub fn new(
        left: A,
        right: B,
        split: impl Fn(T) -> Either<Item<A>, Item<B>> + Send + Sync + 'static,
    ) -> Self {
        Self { left, right, split: Arc::new(split), open: Vec::new() }
    }
}

impl<T, A: Reducer + fmt::Debug, B: Reducer + fmt::Debug> fmt::Debug for Fork<T, A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fork").field("left", &self.left).field("right", &self.right).finish_non_exhaustive()
    }
}

/// Rows of both sides of a [`Fork`].
pub struct ForkRows<T, L: Rows, R: Rows> {
    split: Split<T, L::Item, R::Item>,
    left: L,
    right: R,
    /// For each row, whether it is on the right.
    sides: Vec<bool>,
}

impl<T, L: Rows, R: Rows> fmt::Debug for ForkRows<T, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (left, right) = counts(&self.sides);
        f.debug_struct("ForkRows").field("left", &left).field("right", &right).finish()
    }
}

/// Rows on the left and on the right.
fn counts(sides: &[bool]) -> (usize, usize) {
    let right = sides.iter().filter(|right| **right).count();
    (sides.len() - right, right)
}

impl<T: Send + 'static, L: Rows, R: Rows> ForkRows<T, L, R> {
    fn add(&mut self, row: T, record: Option<&Record<'_>>) -> Result<(), BoxError> {
        let right = match ((self.split)(row), record) {
            (Either::Left(row), Some(record)) => self.left.push_from(row, record).map(|()| false),
            (Either::Left(row), None) => self.left.push(row).map(|()| false),
            (Either::Right(row), Some(record)) => self.right.push_from(row, record).map(|()| true),
            (Either::Right(row), None) => self.right.push(row).map(|()| true),
        };
        self.sides.push(right?);
        Ok(())
    }
}

impl<T: Send + 'static, L: Rows, R: Rows> Rows for ForkRows<T, L, R> {
    type Item = T;

    fn new_empty(&self) -> Self {
        let split = Arc::clone(&self.split);
        Self { split, left: self.left.new_empty(), right: self.right.new_empty(), sides: Vec::new() }
    }

    fn push(&mut self, row: T) -> Result<(), BoxError> {
        self.add(row, None)
    }

    fn push_from(&mut self, row: T, record: &Record<'_>) -> Result<(), BoxError> {
        self.add(row, Some(record))
    }

    fn len(&self) -> usize {
        self.sides.len()
    }

    fn bytes(&self) -> usize {
        self.left.bytes() + self.right.bytes()
    }

    fn resident_bytes(&self) -> Option<usize> {
        Some(self.left.resident_bytes()? + self.right.resident_bytes()? + self.sides.capacity())
    }

    fn truncate(&mut self, len: usize) {
        self.sides.truncate(len);
        let (left, right) = counts(&self.sides);
        self.left.truncate(left);
        self.right.truncate(right);
    }

    fn split_off(&mut self, at: usize) -> Self {
        let sides = self.sides.split_off(at.min(self.sides.len()));
        let (left, right) = counts(&self.sides);
        let (left, right) = (self.left.split_off(left), self.right.split_off(right));
        Self { split: Arc::clone(&self.split), left, right, sides }
    }
}

/// The stricter limits of two. The first one decides how deliveries are retried.
fn stricter(left: BatchOptions, right: &BatchOptions) -> BatchOptions {
    let flushes = right.partial_batch == PartialBatch::Flush;
    BatchOptions {
        max_rows: left.max_rows.min(right.max_rows),
        max_bytes: left.max_bytes.min(right.max_bytes),
        max_age: left.max_age.min(right.max_age),
        max_in_flight: left.max_in_flight.min(right.max_in_flight),
        attempt_timeout: left.attempt_timeout.max(right.attempt_timeout),
        partial_batch: if flushes { PartialBatch::Flush } else { left.partial_batch },
        retry: left.retry,
    }
}

#[async_trait]
impl<T: Send + 'static, A: Reducer, B: Reducer> Reducer for Fork<T, A, B> {
    type Rows = ForkRows<T, A::Rows, B::Rows>;
    type Output = ForkOutput<A::Output, B::Output>;

    fn options(&self) -> BatchOptions {
        stricter(self.left.options(), &self.right.options())
    }

    fn target_topics(&self) -> Vec<TargetTopic> {
        [self.left.target_topics(), self.right.target_topics()].concat()
    }

    #[cfg(feature = "metrics")]
    fn metrics(&mut self, metrics: crate::StageMetrics) {
        self.left.metrics(metrics.clone());
        self.right.metrics(metrics);
    }

    async fn start(&mut self) -> Result<(), BoxError> {
        self.left.start().await?;
        self.right.start().await
    }

    fn new_rows(&self) -> Self::Rows {
        let split = Arc::clone(&self.split);
        ForkRows { split, left: self.left.new_rows(), right: self.right.new_rows(), sides: Vec::new() }
    }

    fn accept(&mut self, chunk: Chunk<Self::Rows>) -> Result<(), BoxError> {
        let ForkRows { left, right, sides, .. } = chunk.rows;
        self.open.extend(sides);
        if !left.is_empty() {
            self.left.accept(Chunk::new(left, chunk.sources.clone()))?;
        }
        if !right.is_empty() {
            self.right.accept(Chunk::new(right, chunk.sources))?;
        }
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = Self::Output>>, BoxError> {
        let sides = std::mem::take(&mut self.open);
        let (left, right) = counts(&sides);
        let left = if left > 0 { Some(Half::new(self.left.freeze()?)) } else { None };
        let right = if right > 0 { Some(Half::new(self.right.freeze()?)) } else { None };
        Ok(Box::new(FrozenFork { sides, left, right }))
    }

    async fn stop(&mut self) -> Result<(), BoxError> {
        let left = self.left.stop().await;
        left.and(self.right.stop().await)
    }
}

/// A frozen batch of both sides.
struct FrozenFork<L, R> {
    sides: Vec<bool>,
    left: Option<Half<L>>,
    right: Option<Half<R>>,
}

/// One side of a frozen batch.
struct Half<O> {
    delivery: Box<dyn Delivery<Output = O>>,
    delivered: Mutex<Option<Delivered<O>>>,
}

impl<O: Send + 'static> Half<O> {
    fn new(delivery: Box<dyn Delivery<Output = O>>) -> Self {
        Self { delivery, delivered: Mutex::new(None) }
    }

    /// Delivers this side, unless it is delivered already.
    async fn deliver(half: Option<&Self>, number: u32) -> Result<(), DeliveryError> {
        match half {
            Some(half) if half.lock().is_none() => {
                let delivered = half.delivery.deliver(Attempt::new(number)).await?;
                *half.lock() = Some(delivered);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Delivered<O>>> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L, R> FrozenFork<L, R> {
    /// Rejected rows of one side, by their index in the whole batch.
    fn rejected<'a>(
        &'a self,
        of_right: bool,
        rejected: Vec<RejectedRow>,
    ) -> impl Iterator<Item = RejectedRow> + 'a {
        let indices: Vec<usize> =
            (0..self.sides.len()).filter(|index| self.sides[*index] == of_right).collect();
        // An index that does not exist stays invalid, so the framework stops at it.
        let index_in_batch = move |index: usize| indices.get(index).copied().unwrap_or(usize::MAX);
        rejected
            .into_iter()
            .map(move |row| RejectedRow { index: index_in_batch(row.index), error: row.error })
    }
}

#[async_trait]
impl<L: Send + 'static, R: Send + 'static> Delivery for FrozenFork<L, R> {
    type Output = ForkOutput<L, R>;

    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<Self::Output>, DeliveryError> {
        let left = Half::deliver(self.left.as_ref(), attempt.number);
        let right = Half::deliver(self.right.as_ref(), attempt.number);
        match join(left, right).await {
            (Ok(()), Ok(())) => {}
            // A permanent failure takes precedence.
            (Err(error), Ok(())) | (Ok(()), Err(error)) => return Err(error),
            (Err(left), Err(right)) => return Err(if right.is_retryable() { left } else { right }),
        }
        let left = self.left.as_ref().and_then(|half| half.lock().take());
        let right = self.right.as_ref().and_then(|half| half.lock().take());
        let mut rejected = Vec::new();
        let left = left.map(|left| {
            rejected.extend(self.rejected(false, left.rejected));
            left.output
        });
        let right = right.map(|right| {
            rejected.extend(self.rejected(true, right.rejected));
            right.output
        });
        Ok(Delivered { output: ForkOutput { left, right }, rejected })
    }
}

#[cfg(test)]
mod tests;
