//! The reducer of a fold: merges values into the rows of the open batch.
//!
//! Invariants:
//! 1. Values are merged one by one in the order in which they are accepted, and rows keep the order
//!    of their first values. So the rows depend on the values and their order alone, not on how
//!    they were cut into chunks (E3).
//! 2. Each accepted value is in exactly one row, and `row_of` names it. The engine's claims cover
//!    values, so a rejected row leads back to all of its records.
//! 3. A frozen batch leaves nothing: each value is in the row of one batch.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;

use super::delivery::{FoldedBatch, RowMap};
use super::functions::Functions;
use super::rows::{FoldRows, RowBytes};
use crate::error::{BoxError, StopConsumer};
use crate::record::TopicPartition;
use crate::reducer::{
    BatchOptions, Chunk, Delivery, Reducer, Rows, SourceRange, TargetTopic, ensure_one_added,
};
use crate::util::identity_hasher::IdentityHasher;

/// Makes what the other reducer receives of a folded row.
type Finish<A, R> = Box<dyn Fn(A) -> Result<<<R as Reducer>::Rows as Rows>::Item, BoxError> + Send>;

/// Folds rows by key into those of another reducer. [`Fold::into`](super::Fold::into) and
/// [`Fold::finish_into`](super::Fold::finish_into) make it.
pub struct FoldReducer<T, K, A, R: Reducer> {
    functions: Arc<Functions<T, K, A>>,
    finish: Finish<A, R>,
    reducer: R,
    /// The empty container of `reducer`, after the first batch.
    rows: Option<R::Rows>,
    row_bytes: RowBytes,
    open: Open<K, A>,
}

/// The open batch.
struct Open<K, A> {
    rows: Vec<A>,
    /// The index of each key's row.
    index: HashMap<Hashed<K>, u32, BuildHasherDefault<IdentityHasher>>,
    /// For each accepted value the index of its row.
    row_of: Vec<u32>,
    /// The records of the batch, by partition.
    sources: BTreeMap<TopicPartition, (i64, i64)>,
}

/// A key with its hash, which a map task has computed.
#[derive(PartialEq, Eq)]
struct Hashed<K> {
    hash: u64,
    key: K,
}

impl<K> Hash for Hashed<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<K, A> Default for Open<K, A> {
    fn default() -> Self {
        let (rows, row_of) = (Vec::new(), Vec::new());
        Self { rows, index: HashMap::default(), row_of, sources: BTreeMap::new() }
    }
}

impl<K: Eq, A> Open<K, A> {
    fn add(&mut self, key: Hashed<K>, row: A, merge: impl Fn(&mut A, A)) -> Result<(), BoxError> {
        let next = self.rows.len();
        let index = match self.index.get(&key) {
            Some(index) => *index,
            None => {
                let index = u32::try_from(next).map_err(|_| "a batch has more than 2^32 rows")?;
                self.index.insert(key, index);
                index
            }
        };
        self.row_of.push(index);
        match self.rows.get_mut(index as usize) {
            Some(earlier) => merge(earlier, row),
            None => self.rows.push(row),
        }
        Ok(())
    }

    fn add_source(&mut self, SourceRange { partition, first, last }: SourceRange) {
        let range = self.sources.entry(partition).or_insert((first, last));
        *range = (range.0.min(first), range.1.max(last));
    }
}

impl<T, K, A, R: Reducer> FoldReducer<T, K, A, R> {
    pub(super) fn new(functions: Arc<Functions<T, K, A>>, finish: Finish<A, R>, reducer: R) -> Self {
        let row_bytes = RowBytes::new(size_of::<A>());
        Self { functions, finish, reducer, rows: None, row_bytes, open: Open::default() }
    }

    /// Passes the rows of a batch to the reducer. Returns those that cannot be finished, and those
    /// that its container rejects.
    fn pass_on(
        &mut self,
        rows: Vec<A>,
        sources: Vec<SourceRange>,
    ) -> Result<BTreeMap<usize, Arc<BoxError>>, BoxError> {
        let empty = self.rows.get_or_insert_with(|| self.reducer.new_rows());
        let (mut passed, mut rejected) = (empty.new_empty(), BTreeMap::new());
        passed.reserve(rows.len());
        for (index, row) in rows.into_iter().enumerate() {
            let before = passed.len();
            let pushed = (self.finish)(row).and_then(|row| passed.push(row));
            match pushed.and_then(|()| ensure_one_added(&passed, before)) {
                Ok(()) => {}
                Err(error) if error.is::<StopConsumer>() => return Err(error),
                Err(error) => {
                    passed.truncate(before);
                    rejected.insert(index, Arc::new(error));
                }
            }
        }
        self.row_bytes.learn(passed.len(), passed.bytes());
        if !passed.is_empty() {
            self.reducer.accept(Chunk::new(passed, sources))?;
        }
        Ok(rejected)
    }
}

impl<T, K, A, R: Reducer + fmt::Debug> fmt::Debug for FoldReducer<T, K, A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FoldReducer").field("reducer", &self.reducer).finish_non_exhaustive()
    }
}

#[async_trait]
impl<T, K, A, R> Reducer for FoldReducer<T, K, A, R>
where
    T: Send + 'static,
    K: Eq + Hash + Send + 'static,
    A: Send + 'static,
    R: Reducer,
{
    type Rows = FoldRows<T, K, A>;
    type Output = R::Output;

    fn options(&self) -> BatchOptions {
        self.reducer.options()
    }

    fn target_topics(&self) -> Vec<TargetTopic> {
        self.reducer.target_topics()
    }

    #[cfg(feature = "metrics")]
    fn metrics(&mut self, metrics: crate::StageMetrics) {
        self.reducer.metrics(metrics);
    }

    async fn start(&mut self) -> Result<(), BoxError> {
        self.reducer.start().await
    }

    async fn start_exactly_once(&mut self) -> Result<(), BoxError> {
        self.reducer.start_exactly_once().await
    }

    fn new_rows(&self) -> Self::Rows {
        FoldRows::new(Arc::clone(&self.functions), self.row_bytes.clone())
    }

    fn accept(&mut self, chunk: Chunk<Self::Rows>) -> Result<(), BoxError> {
        let Chunk { rows: FoldRows { hashes, values, .. }, sources } = chunk;
        self.open.row_of.reserve(values.len());
        for (hash, (key, row)) in hashes.into_iter().zip(values) {
            self.open.add(Hashed { hash, key }, row, &*self.functions.merge)?;
        }
        sources.into_iter().for_each(|source| self.open.add_source(source));
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = R::Output>>, BoxError> {
        let Open { rows, row_of, sources, .. } = std::mem::take(&mut self.open);
        let sources = sources.into_iter().map(|(of, (first, last))| SourceRange::new(of, first, last));
        let count = rows.len();
        let rejected = self.pass_on(rows, sources.collect())?;
        let map = RowMap { row_of, rows: count, rejected };
        Ok(Box::new(FoldedBatch { delivery: self.reducer.freeze()?, map }))
    }

    async fn stop(&mut self) -> Result<(), BoxError> {
        self.reducer.stop().await
    }
}
