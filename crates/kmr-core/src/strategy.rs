//! The typed chain of stages that a user writes, [`Strategy`], and its complete form, [`Pipeline`].

use std::fmt;

use crate::graph::build::{Link, ReduceLink, SourceLink, build_errors};
use crate::graph::pipeline::{Pipeline, ReduceInfo};
use crate::record::Record;
use crate::reducer::{Reducer, RetryPolicy};
use crate::stage::{
    Apply, Chain, Concurrency, Filter, Head, IntoRecordMap, IntoValueMap, Many, MapError, MapOptions,
    MapOutput, Maybe, One, Optional, Pass, Predicate, RecordFunction, RecordPredicate, RowsOf,
    RowsOfDeadLetters, Several, Stage, Then, ValueFunction, Via, ViaOptional, ViaSeveral, stage_name, via,
    via_optional, via_several,
};

/// The processing of records: map stages, then one or more reduces, then `reduce_err`.
///
/// Stages come in this order:
///
/// * `filter`s on records;
/// * a map stage (`map`, `filter_map`, `flat_map`), then further maps and filters on its output;
/// * a [`reduce`](Self::reduce), then further maps and reduces on its output;
/// * [`reduce_err`](Self::reduce_err) as the last stage, for the records that failed at any stage.
///
/// Consecutive map stages are fused: one call per record, with no queue and no copy between them.
/// They run in parallel on every assigned partition.
///
/// A stage that does not fit the stage before it does not compile. The `processing_strategy!` macro
/// expands to these calls.
///
/// # Examples
/// ```
/// use kmr_core::{Record, Strategy};
/// # use kmr_core::{async_trait, BatchOptions, BoxError, Chunk, Delivered, Delivery, DeliveryError, Attempt, Reducer};
/// # struct Print(Vec<String>);
/// # struct Printed(Vec<String>);
/// # #[async_trait]
/// # impl Reducer for Print {
/// #     type Rows = Vec<String>;
/// #     type Output = ();
/// #     fn new_rows(&self) -> Vec<String> { Vec::new() }
/// #     fn accept(&mut self, chunk: Chunk<Vec<String>>) -> Result<(), BoxError> { self.0.extend(chunk.rows); Ok(()) }
/// #     fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
/// #         Ok(Box::new(Printed(std::mem::take(&mut self.0))))
/// #     }
/// # }
/// # #[async_trait]
/// # impl Delivery for Printed {
/// #     type Output = ();
/// #     async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> { Ok(Delivered::new(())) }
/// # }
/// fn text(record: &Record<'_>) -> Result<String, std::str::Utf8Error> {
///     Ok(std::str::from_utf8(record.payload().unwrap_or_default())?.to_owned())
/// }
///
/// let strategy = Strategy::new()
///     .map(text)
///     .filter(|line: &String| !line.is_empty())
///     .flat_map(|line: String| Ok::<_, std::convert::Infallible>(line.lines().map(str::to_owned).collect::<Vec<_>>()))
///     .reduce(Print(Vec::new()));
/// ```
#[must_use = "a strategy does nothing until a consumer runs it"]
pub struct Strategy<L = SourceLink, C = Records> {
    link: L,
    chain: C,
    counts: Counts,
    reduces: Vec<ReduceInfo>,
    options: MapOptions,
}

/// A strategy that has no map stage yet: it can only filter records.
#[derive(Default)]
pub struct Records {
    filters: Vec<(Stage, RecordPredicate)>,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("filters", &self.filters.len()).finish()
    }
}

impl<L, C> fmt::Debug for Strategy<L, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Strategy");
        text.field("stages", &self.counts)
            .field("options", &self.options)
            .field("reduces", &self.reduces)
            .finish()
    }
}

/// Numbers stages of each kind from 1, for their names.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    maps: usize,
    filters: usize,
    reduces: usize,
}

impl Counts {
    fn map(&mut self) -> Stage {
        self.maps += 1;
        Stage::new("map", self.maps)
    }

    fn filter(&mut self) -> Stage {
        self.filters += 1;
        Stage::new("filter", self.filters)
    }

    fn reduce(&mut self) -> Stage {
        self.reduces += 1;
        Stage::new("reduce", self.reduces)
    }
}

/// A strategy whose first map stage is `X`.
type FirstMap<X, K> = Strategy<SourceLink, Head<X, K>>;
/// A strategy with the map stage `X` after the stages `C`.
type NextMap<L, C, X, K> = Strategy<L, Then<C, X, K>>;

#[expect(
    clippy::type_complexity,
    reason = "a stage's type is named by way of its checks: see `stage::output`"
)]
impl Strategy {
    /// A strategy without stages.
    pub fn new() -> Self {
        Self {
            link: SourceLink,
            chain: Records::default(),
            counts: Counts::default(),
            reduces: Vec::new(),
            options: MapOptions::default(),
        }
    }

    /// Skips the records for which `predicate` returns `false`: they are committed without further
    /// processing.
    pub fn filter(mut self, predicate: impl Fn(&Record<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.chain.filters.push((self.counts.filter(), Box::new(predicate)));
        self
    }

    /// Maps each record to one value.
    ///
    /// Takes `fn(&Record<'_>) -> Result<T, E>` (borrowed, nothing is copied), `async
    /// fn(OwnedRecord) -> Result<T, E>`, or a type that implements [`Mapper`](crate::Mapper) or
    /// [`AsyncMapper`](crate::AsyncMapper). A closure's argument needs its type written out. An
    /// `Err` or a panic sends the record to `reduce_err`. After an `Err` of
    /// [`Retryable`](crate::Retryable) the record is retried first: see
    /// [`map_retry`](Self::map_retry).
    ///
    /// A synchronous stage may compute for long, or block: see [`Mapper`](crate::Mapper).
    pub fn map<F, M, A, D>(self, map: F) -> FirstMap<Via<F::Returns, A, D, RecordFunction<F, M, A>>, One>
    where
        F: IntoRecordMap<M>,
        F::Returns: MapOutput<A, Output: Send + 'static, Error: MapError<D>, Awaited: Send + 'static>,
    {
        self.head(via::<F::Returns, A, D, _>(RecordFunction::new(map)))
    }

    /// Maps each record to one value or none. None skips the record: it is committed without
    /// further processing.
    pub fn filter_map<F, M, A, D>(
        self,
        map: F,
    ) -> FirstMap<ViaOptional<F::Returns, A, D, RecordFunction<F, M, A>>, Maybe>
    where
        F: IntoRecordMap<M>,
        F::Returns:
            MapOutput<A, Output: Optional + Send + 'static, Error: MapError<D>, Awaited: Send + 'static>,
    {
        self.head(via_optional::<F::Returns, A, D, _>(RecordFunction::new(map)))
    }

    /// Maps each record to any number of values. The record is finished when all of them are.
    pub fn flat_map<F, M, A, D, I>(
        self,
        map: F,
    ) -> FirstMap<ViaSeveral<F::Returns, A, D, I, RecordFunction<F, M, A>>, Many>
    where
        F: IntoRecordMap<M>,
        F::Returns:
            MapOutput<A, Output: Several<I> + Send + 'static, Error: MapError<D>, Awaited: Send + 'static>,
    {
        self.head(via_several::<F::Returns, A, D, I, _>(RecordFunction::new(map)))
    }

    fn head<F, K>(mut self, form: F) -> Strategy<SourceLink, Head<F, K>> {
        let chain = Head::new(self.chain.filters, Apply::new(self.counts.map(), form));
        Strategy { link: self.link, chain, counts: self.counts, reduces: self.reduces, options: self.options }
    }
}

/// Settings of the map stages before the first reduce. They may be set anywhere before it, before
/// or after those stages.
impl<C> Strategy<SourceLink, C> {
    /// Number of records of one partition that are in progress at once in asynchronous map stages:
    /// a number, or a [`Concurrency`]. Default 1, at least 1.
    pub fn map_concurrency(mut self, concurrency: impl Into<Concurrency>) -> Self {
        self.options.concurrency = concurrency.into();
        self
    }

    /// Retries of a record whose map stage fails with [`Retryable`](crate::Retryable). Default
    /// [`RetryPolicy::default`]: the record is mapped again after up to 100 ms, doubled each time
    /// up to 10 s. Five minutes after the first attempt it becomes a dead letter with its last
    /// error. With [`give_up_after`](RetryPolicy::give_up_after) of `None` it is retried forever.
    ///
    /// Jitter spreads the waits. A record that waits keeps its position: later records do not
    /// overtake it, and earlier records and other partitions continue. It counts as a record in
    /// progress, so later records are mapped meanwhile as far as
    /// [`map_concurrency`](Self::map_concurrency) allows. When the partition is revoked, the record
    /// is dropped at once without a commit, and the next owner reads it again.
    pub fn map_retry(mut self, policy: RetryPolicy) -> Self {
        self.options.retry = policy;
        self
    }
}

impl Default for Strategy {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(
    clippy::type_complexity,
    reason = "a stage's type is named by way of its checks: see `stage::output`"
)]
impl<L, C: Chain> Strategy<L, C> {
    /// Drops the values for which `predicate` returns `false`. A record without any value left is
    /// committed.
    pub fn filter<P, M>(mut self, predicate: P) -> Strategy<L, Filter<C, P::Via<P>>>
    where
        P: Predicate<C::Out, C::Last, M>,
    {
        let chain = Filter::new(self.chain, self.counts.filter(), P::via(predicate));
        Strategy { link: self.link, chain, counts: self.counts, reduces: self.reduces, options: self.options }
    }

    /// Maps each value to one value.
    ///
    /// Takes `fn(T) -> Result<U, E>`, `async fn(T) -> Result<U, E>`, or a closure, whose argument
    /// needs no type. An `Err` or a panic sends the record of the value to `reduce_err`, and
    /// removes the record's other values.
    pub fn map<F, M, A, D>(self, map: F) -> NextMap<L, C, Via<F::Returns, A, D, ValueFunction<F, A>>, One>
    where
        F: IntoValueMap<C::Out, C::Last, stage_name::map, M>,
        F::Returns: MapOutput<A, Output: Send + 'static, Error: MapError<D>, Awaited: Send + 'static>,
    {
        self.then(via::<F::Returns, A, D, _>(ValueFunction::new(map)))
    }

    /// Maps each value to one value or none.
    pub fn filter_map<F, M, A, D>(
        self,
        map: F,
    ) -> NextMap<L, C, ViaOptional<F::Returns, A, D, ValueFunction<F, A>>, Maybe>
    where
        F: IntoValueMap<C::Out, C::Last, stage_name::filter_map, M>,
        F::Returns:
            MapOutput<A, Output: Optional + Send + 'static, Error: MapError<D>, Awaited: Send + 'static>,
    {
        self.then(via_optional::<F::Returns, A, D, _>(ValueFunction::new(map)))
    }

    /// Maps each value to any number of values.
    pub fn flat_map<F, M, A, D, I>(
        self,
        map: F,
    ) -> NextMap<L, C, ViaSeveral<F::Returns, A, D, I, ValueFunction<F, A>>, Many>
    where
        F: IntoValueMap<C::Out, C::Last, stage_name::flat_map, M>,
        F::Returns:
            MapOutput<A, Output: Several<I> + Send + 'static, Error: MapError<D>, Awaited: Send + 'static>,
    {
        self.then(via_several::<F::Returns, A, D, I, _>(ValueFunction::new(map)))
    }

    fn then<F, K>(mut self, form: F) -> Strategy<L, Then<C, F, K>> {
        let chain = Then::new(self.chain, Apply::new(self.counts.map(), form));
        Strategy { link: self.link, chain, counts: self.counts, reduces: self.reduces, options: self.options }
    }

    /// Collects values into batches and delivers them. The reducer's output for a batch goes to the
    /// next stage.
    pub fn reduce<R, M>(mut self, reducer: R) -> Strategy<ReduceLink<R::Output>, Pass<R::Output>>
    where
        L: Link<C>,
        R: Reducer,
        R::Rows: RowsOf<C::Out, C::Last, M>,
    {
        let info = ReduceInfo::new(self.counts.reduce(), &reducer);
        self.reduces.push(info.clone());
        let link = ReduceLink::new(info, reducer, self.link, self.chain);
        Strategy {
            link,
            chain: Pass::default(),
            counts: self.counts,
            reduces: self.reduces,
            options: self.options,
        }
    }
}

impl<T, C> Strategy<ReduceLink<T>, C>
where
    T: Send + 'static,
    C: for<'r> Chain<In<'r> = T>,
{
    /// Receives the records that failed at any stage. It is the last stage. A record's offset is
    /// committed only after its dead letter has been delivered.
    ///
    /// Without it, the first record that fails stops the consumer: nothing is skipped silently.
    pub fn reduce_err<R, M>(self, reducer: R) -> Pipeline
    where
        R: Reducer,
        R::Rows: RowsOfDeadLetters<M>,
    {
        let info = ReduceInfo::new(Stage::named("reduce_err"), &reducer);
        let mut pipeline = self.into_pipeline();
        pipeline.errors = Some((info.clone(), build_errors(info, reducer)));
        pipeline
    }
}

/// `processing_strategy!` puts this in place of a strategy that it rejected, so that no other error
/// follows. Never runs.
#[doc(hidden)]
pub fn stub() -> Pipeline {
    Pipeline {
        build: Box::new(|build| Box::pin(async { Ok(build) })),
        errors: None,
        reduces: Vec::new(),
        options: MapOptions::default(),
    }
}

/// A strategy that a consumer can run: a [`Pipeline`], or a [`Strategy`] that ends with a reduce or
/// with a map after one.
#[diagnostic::on_unimplemented(
    message = "this strategy is not complete: it has no `reduce` stage",
    label = "add `.reduce(…)` after the map stages"
)]
pub trait IntoPipeline {
    /// Completes the strategy.
    fn into_pipeline(self) -> Pipeline;
}

impl IntoPipeline for Pipeline {
    fn into_pipeline(self) -> Pipeline {
        self
    }
}

impl<T, C> IntoPipeline for Strategy<ReduceLink<T>, C>
where
    T: Send + 'static,
    C: for<'r> Chain<In<'r> = T>,
{
    fn into_pipeline(self) -> Pipeline {
        Pipeline {
            build: self.link.finish(self.chain),
            errors: None,
            reduces: self.reduces,
            options: self.options,
        }
    }
}
