//! Folds: the rows of one key in a batch become one row before another reducer receives them.
//!
//! [`Fold`] makes such a reducer. [`Count`], [`Sum`], [`Min`], [`Max`], [`Average`], [`First`] and
//! [`Last`] are ready parts of rows, and [`time_bucket`] is part of a key.

// `rows` is the container that map tasks fill. `reducer` merges rows, and passes one per key on.
// `delivery` makes a rejected row into the rejection of all values in it. Design:
// docs/design/fold.md.
mod delivery;
mod functions;
mod ready;
mod reducer;
mod rows;

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use self::functions::Functions;
pub use self::ready::{Average, Count, First, Last, Max, Merge, Min, Sum, time_bucket};
pub use self::reducer::FoldReducer;
pub use self::rows::FoldRows;
use crate::error::BoxError;
use crate::reducer::{Reducer, Rows};

/// Makes the rows of one key in a batch into one row, upstream of any reducer.
///
/// The map stages emit values of type `T`. [`by_key`](Self::by_key) takes three functions: the key
/// of a value, the row that a value alone is, and how a later row is merged into an earlier one.
/// [`into`](Self::into) names the reducer that receives one row per key, and
/// [`finish_into`](Self::finish_into) one that receives something else.
///
/// A batch holds all values that arrive until it is due. Its limits
/// ([`BatchOptions::max_rows`](crate::BatchOptions::max_rows) and
/// [`max_bytes`](crate::BatchOptions::max_bytes)) count the rows after folding, and its age counts
/// from the first value. Rows keep the order in which their keys first occurred. kmr knows the
/// bytes of a row only when the batch is closed, so `max_bytes` counts the mean of the batch
/// before.
///
/// # Delivery
/// A record is finished when every row that it went into is delivered. A row that the sink rejects
/// holds many records. Each of them becomes a dead letter, and all other rows are stored.
///
/// One key can have several rows: one per batch, and in exactly-once mode one per batch and
/// partition. So the table has to add them up. SummingMergeTree does, or `GROUP BY` in the query.
///
/// # The contract of the functions
/// * `merge` is associative: for rows `a`, `b` and `c` in this order, merging `b` into `a` and then
///   `c` gives the same as merging `c` into `b` first. kmr decides where a batch ends.
/// * All three functions depend on their arguments alone: on no clock, no random number, no counter
///   and no other record. In exactly-once mode the partition's next owner folds the same records
///   again, and other rows stop it with [`Error::BlockChanged`](crate::Error::BlockChanged).
/// * They do not panic. A panic of `key` or `init` fails the record, one of `merge` stops the
///   consumer.
///
/// `testing::assert_foldable` (feature `embedded`) finds functions that break the contract.
///
/// kmr merges rows one by one, in the order of their offsets. So a sum of `f64` is the same when a
/// block is rebuilt, although addition of `f64` is not quite associative.
///
/// # Examples
/// ```
/// use kmr_core::fold::{Count, Max, Merge, Sum};
/// use kmr_core::{Fold, Reducer};
///
/// struct Visit {
///     page: u32,
///     millis: u64,
/// }
///
/// struct PageVisits {
///     page: u32,
///     visits: Count,
///     millis: Sum<u64>,
///     longest: Max<u64>,
/// }
///
/// impl PageVisits {
///     fn of(Visit { page, millis }: Visit) -> Self {
///         Self { page, visits: Count::ONE, millis: Sum(millis), longest: Max(millis) }
///     }
///
///     fn merge(&mut self, later: Self) {
///         self.visits.merge(later.visits);
///         self.millis.merge(later.millis);
///         self.longest.merge(later.longest);
///     }
/// }
///
/// fn per_page<W: Reducer<Rows = Vec<PageVisits>>>(writer: W) -> impl Reducer {
///     Fold::by_key(|visit: &Visit| visit.page, PageVisits::of, PageVisits::merge).into(writer)
/// }
/// ```
#[must_use = "a fold does nothing without a reducer: call `into`"]
pub struct Fold<T, K, A> {
    functions: Arc<Functions<T, K, A>>,
}

impl<T, K: Eq + Hash, A> Fold<T, K, A> {
    /// Folds the values for which `key` returns the same. `init` makes the row of one value, and
    /// `merge` adds a later row to an earlier one.
    ///
    /// `key` and `init` run in the map tasks, in parallel. `merge` runs in the one task of the
    /// reduce stage.
    pub fn by_key(
        key: impl Fn(&T) -> K + Send + Sync + 'static,
        init: impl Fn(T) -> A + Send + Sync + 'static,
        merge: impl Fn(&mut A, A) + Send + Sync + 'static,
    ) -> Self {
        Self { functions: Arc::new(Functions::new(Arc::new(key), Arc::new(init), Arc::new(merge))) }
    }

    /// Sets how many bytes of the heap the key and the row of one value own. The memory budget is
    /// charged with them.
    ///
    /// Default: the payload and the key of the record, if `K` or `A` owns memory at all. That is
    /// too little for rows that own more than the content of their record, such as a `Vec` with an
    /// element for each column. Set it for these.
    ///
    /// `bytes` runs in the map tasks, once for each value.
    pub fn heap_bytes(mut self, bytes: impl Fn(&K, &A) -> usize + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.functions).heap_bytes = Some(Arc::new(bytes));
        self
    }

    /// Folds into `reducer`: it receives one row per key and batch.
    pub fn into<R: Reducer<Rows: Rows<Item = A>>>(self, reducer: R) -> FoldReducer<T, K, A, R>
    where
        A: 'static,
    {
        FoldReducer::new(self.functions, Box::new(Ok), reducer)
    }

    /// Folds into `reducer`, which receives what `finish` makes of a folded row: for rows whose
    /// parts are no columns, such as a sketch or a set that becomes a number.
    ///
    /// `finish` runs in the task of the reduce stage, once per row. It depends on its argument
    /// alone, as the other functions do. Its error rejects the row: each record in it becomes a
    /// dead letter. An error of type [`StopConsumer`](crate::StopConsumer) stops the consumer.
    ///
    /// # Examples
    /// ```
    /// use std::collections::BTreeSet;
    ///
    /// use kmr_core::{BoxError, Fold, Reducer};
    ///
    /// struct Visit {
    ///     page: u32,
    ///     user: u64,
    /// }
    ///
    /// struct PageUsers {
    ///     page: u32,
    ///     /// For a column of type `SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64))`.
    ///     users: Vec<u64>,
    /// }
    ///
    /// fn users<W: Reducer<Rows = Vec<PageUsers>>>(writer: W) -> impl Reducer {
    ///     Fold::by_key(
    ///         |visit: &Visit| visit.page,
    ///         |Visit { page, user }| (page, BTreeSet::from([user])),
    ///         |(_, users), (_, later)| users.extend(later),
    ///     )
    ///     .finish_into(
    ///         |(page, users)| Ok(PageUsers { page, users: users.into_iter().collect() }),
    ///         writer,
    ///     )
    /// }
    /// ```
    pub fn finish_into<R: Reducer>(
        self,
        finish: impl Fn(A) -> Result<<R::Rows as Rows>::Item, BoxError> + Send + 'static,
        reducer: R,
    ) -> FoldReducer<T, K, A, R> {
        FoldReducer::new(self.functions, Box::new(finish), reducer)
    }
}

impl<T, K: Eq + Hash> Fold<T, K, T> {
    /// Keeps the last value of each key in a batch, for topics whose records replace earlier ones.
    ///
    /// Earlier values are dropped, and their records are finished together with the last one. A key
    /// still has one row per batch: a ReplacingMergeTree removes the rest.
    pub fn last_by_key(key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self {
        Self::by_key(key, |value| value, |row, later| *row = later)
    }

    /// Keeps the first value of each key in a batch, for topics that repeat records.
    ///
    /// Later values are dropped, and their records are finished together with the first one. A key
    /// still has one row per batch.
    pub fn first_by_key(key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self {
        Self::by_key(key, |value| value, |_, _| {})
    }
}

/// For `testing::assert_foldable`.
#[cfg(feature = "embedded")]
impl<T, K, A> Fold<T, K, A> {
    pub(crate) fn key(&self, value: &T) -> K {
        (self.functions.key)(value)
    }

    pub(crate) fn init(&self, value: T) -> A {
        (self.functions.init)(value)
    }

    pub(crate) fn merge(&self, row: &mut A, later: A) {
        (self.functions.merge)(row, later);
    }
}

impl<T, K, A> Clone for Fold<T, K, A> {
    fn clone(&self) -> Self {
        Self { functions: Arc::clone(&self.functions) }
    }
}

impl<T, K, A> fmt::Debug for Fold<T, K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fold")
    }
}

#[cfg(test)]
mod tests;
