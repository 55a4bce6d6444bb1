//! The typed chain of stages that a user writes: [`Strategy`], and what it becomes: [`Pipeline`].

use std::fmt;

use crate::dead_letter::DeadLetter;
use crate::graph::wiring::{BuildErrors, BuildGraph, Link, ReduceLink, SourceLink, build_errors};
use crate::record::Record;
use crate::reducer::{BatchOptions, Reducer, Rows};
use crate::stage::{
    Apply, Chain, Emission, Filter, Head, IntoRecordMap, IntoValueMap, Many, Maybe, One, Pass,
    RecordPredicate, Stage, Then,
};

/// What happens to the records: map stages, then one or more reduces, then `reduce_err`.
///
/// Stages in any sensible order: `filter`s on records, a map stage (`map`, `filter_map`, `flat_map`), further maps and
/// filters on its output, a [`reduce`](Self::reduce); behind it more maps and reduces on what the reduce returns; at the end
/// [`reduce_err`](Self::reduce_err) for the records that failed at any stage. Map stages in a row are fused: no queue
/// between them, no copy, one call a record, in parallel on every assigned partition.
///
/// A stage that does not fit the one before it does not compile, and the `processing_strategy!` macro expands to these
/// calls.
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
/// #     fn rows(&self) -> Vec<String> { Vec::new() }
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
        f.debug_struct("Strategy").field("stages", &self.counts).field("reduces", &self.reduces).finish()
    }
}

/// A reduce stage and how it batches.
#[derive(Clone, Debug)]
pub(crate) struct ReduceInfo {
    pub(crate) stage: Stage,
    pub(crate) options: BatchOptions,
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

impl Strategy {
    /// A strategy without stages.
    pub fn new() -> Self {
        Self { link: SourceLink, chain: Records::default(), counts: Counts::default(), reduces: Vec::new() }
    }

    /// Skips the records for which `predicate` says `false`: they are committed and go nowhere.
    pub fn filter(mut self, predicate: impl Fn(&Record<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.chain.filters.push((self.counts.filter(), Box::new(predicate)));
        self
    }

    /// Maps each record to one value.
    ///
    /// Takes `fn(&Record<'_>) -> Result<T, E>` (borrowed, nothing is copied), `async fn(OwnedRecord) -> Result<T, E>`, or a
    /// type that implements [`Mapper`](crate::Mapper) or [`AsyncMapper`](crate::AsyncMapper). An `Err`, or a panic, sends
    /// the record to `reduce_err`.
    pub fn map<F, M>(self, map: F) -> Strategy<SourceLink, Head<F::Map, One>>
    where
        F: IntoRecordMap<M>,
    {
        self.head(map)
    }

    /// Maps each record to a value or to none. None is a skip: the record is committed and goes nowhere.
    pub fn filter_map<F, M, T>(self, map: F) -> Strategy<SourceLink, Head<F::Map, Maybe>>
    where
        F: IntoRecordMap<M, Output = Option<T>>,
        T: Send + 'static,
    {
        self.head(map)
    }

    /// Maps each record to any number of values. The record is finished when all of them are.
    pub fn flat_map<F, M>(self, map: F) -> Strategy<SourceLink, Head<F::Map, Many>>
    where
        F: IntoRecordMap<M>,
        F::Output: IntoIterator,
        <F::Output as IntoIterator>::Item: Send + 'static,
    {
        self.head(map)
    }

    fn head<F, M, K>(mut self, map: F) -> Strategy<SourceLink, Head<F::Map, K>>
    where
        F: IntoRecordMap<M>,
        K: Emission<F::Output>,
    {
        let apply = Apply::new(self.counts.map(), map.into_record_map());
        let chain = Head::new(self.chain.filters, apply);
        Strategy { link: self.link, chain, counts: self.counts, reduces: self.reduces }
    }
}

impl Default for Strategy {
    fn default() -> Self {
        Self::new()
    }
}

impl<L, C: Chain> Strategy<L, C> {
    /// Drops the values for which `predicate` says `false`. A record that is left without values is committed.
    pub fn filter<P>(mut self, predicate: P) -> Strategy<L, Filter<C, P>>
    where
        P: Fn(&C::Out) -> bool + Send + Sync + 'static,
    {
        let chain = Filter::new(self.chain, self.counts.filter(), predicate);
        Strategy { link: self.link, chain, counts: self.counts, reduces: self.reduces }
    }

    /// Maps each value to one value.
    ///
    /// Takes `fn(T) -> Result<U, E>` or `async fn(T) -> Result<U, E>`. An `Err`, or a panic, sends the record that the value
    /// came from to `reduce_err`, and takes back what else the record gave.
    pub fn map<F, M>(self, map: F) -> Strategy<L, Then<C, F::Map, One>>
    where
        F: IntoValueMap<C::Out, M>,
    {
        self.then(map)
    }

    /// Maps each value to a value or to none.
    pub fn filter_map<F, M, T>(self, map: F) -> Strategy<L, Then<C, F::Map, Maybe>>
    where
        F: IntoValueMap<C::Out, M, Output = Option<T>>,
        T: Send + 'static,
    {
        self.then(map)
    }

    /// Maps each value to any number of values.
    pub fn flat_map<F, M>(self, map: F) -> Strategy<L, Then<C, F::Map, Many>>
    where
        F: IntoValueMap<C::Out, M>,
        F::Output: IntoIterator,
        <F::Output as IntoIterator>::Item: Send + 'static,
    {
        self.then(map)
    }

    fn then<F, M, K>(mut self, map: F) -> Strategy<L, Then<C, F::Map, K>>
    where
        F: IntoValueMap<C::Out, M>,
        K: Emission<F::Output>,
    {
        let chain = Then::new(self.chain, Apply::new(self.counts.map(), map.into_value_map()));
        Strategy { link: self.link, chain, counts: self.counts, reduces: self.reduces }
    }

    /// Collects values into batches and delivers them. What the reducer returns for a batch flows on to the next stage.
    pub fn reduce<R>(mut self, reducer: R) -> Strategy<ReduceLink<R::Output>, Pass<R::Output>>
    where
        L: Link<C>,
        R: Reducer,
        R::Rows: Rows<Item = C::Out>,
    {
        let info = ReduceInfo { stage: self.counts.reduce(), options: reducer.options() };
        self.reduces.push(info.clone());
        let link = ReduceLink::new(info, reducer, self.link, self.chain);
        Strategy { link, chain: Pass::default(), counts: self.counts, reduces: self.reduces }
    }
}

impl<T, C> Strategy<ReduceLink<T>, C>
where
    T: Send + 'static,
    C: for<'r> Chain<In<'r> = T>,
{
    /// Takes the records that failed at any stage: the last stage. A record's offset is committed only after its dead
    /// letter has been delivered.
    ///
    /// Without it, the first record that fails stops the consumer: nothing is skipped silently.
    pub fn reduce_err<R>(self, reducer: R) -> Pipeline
    where
        R: Reducer,
        R::Rows: Rows<Item = DeadLetter>,
    {
        let info = ReduceInfo { stage: Stage::named("reduce_err"), options: reducer.options() };
        let mut pipeline = self.into_pipeline();
        pipeline.errors = Some((info.clone(), build_errors(info, reducer)));
        pipeline
    }
}

/// A complete strategy, ready to be run by a consumer.
pub struct Pipeline {
    pub(crate) build: BuildGraph,
    pub(crate) errors: Option<(ReduceInfo, BuildErrors)>,
    pub(crate) reduces: Vec<ReduceInfo>,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.errors.as_ref().map(|(info, _)| info);
        f.debug_struct("Pipeline").field("reduces", &self.reduces).field("reduce_err", &errors).finish()
    }
}

/// What a consumer runs: a [`Pipeline`], or a [`Strategy`] that ends with a reduce or a map behind one.
#[diagnostic::on_unimplemented(
    message = "this strategy is not complete: it has no `reduce` stage",
    label = "add `.reduce(…)` behind the map stages"
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
        Pipeline { build: self.link.finish(self.chain), errors: None, reduces: self.reduces }
    }
}
