//! The forms of `map`, `filter_map` and `flat_map`, each turned into the form that the graph runs.
//!
//! The bounds are split, so that rustc names each mistake in the words of a strategy:
//!
//! * whether it is a stage at all, with the right argument: [`IntoRecordMap`], [`IntoValueMap`];
//! * what it returns, and whether its future is `Send`: [`MapOutput`];
//! * its error: [`MapError`](super::MapError).

use std::marker::PhantomData;

use super::diagnostics::{Decoy, Fits, Nothing};
use super::mapper::{AsyncMapper, Call, Mapper, RecordMap, ValueMap};
use super::output::MapOutput;
use crate::error::BoxError;
use crate::record::{OwnedRecord, Record};

/// A map stage on records. `Marker` is inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a map stage on Kafka records",
    label = "the first map stage takes a Kafka record, this does not",
    note = "it may be `fn(&Record<'_>) -> Result<T, E>`, `async fn(OwnedRecord) -> Result<T, E>`, a closure of the same form \
            with its argument's type written out, or a type that implements `Mapper` or `AsyncMapper`"
)]
pub trait IntoRecordMap<Marker>: Send + Sync + 'static {
    /// What a call returns. For a `Mapper` or `AsyncMapper`, the `Result` of its `map`.
    type Returns;
}

/// A map stage on the values of the stage before it. `Marker` is inferred.
///
/// The supertrait makes it a function of `In`, so closures need no annotation.
#[diagnostic::on_unimplemented(
    message = "this `{To}` does not take what the `{From}` before it emits: it has to be a function of `{In}`",
    label = "the `{From}` before this `{To}` emits `{In}`, which this does not take",
    note = "it may be `fn({In}) -> Result<T, E>`, `async fn({In}) -> Result<T, E>`, or a closure of the same form"
)]
pub trait IntoValueMap<In, From, To, Marker>: Fn(In) -> Self::Returns + Send + Sync + 'static {
    /// What a call returns.
    type Returns;
}

/// A map stage on records, as the graph runs it: `F` in the form `M`, with an output of the kind
/// `A`.
#[derive(Debug)]
pub struct RecordFunction<F, M, A>(F, PhantomData<fn() -> (M, A)>);

/// A map stage on values, as the graph runs it: `F` with an output of the kind `A`.
#[derive(Debug)]
pub struct ValueFunction<F, A>(F, PhantomData<fn() -> A>);

impl<F, M, A> RecordFunction<F, M, A> {
    /// Wraps a stage.
    pub fn new(stage: F) -> Self {
        Self(stage, PhantomData)
    }
}

impl<F, A> ValueFunction<F, A> {
    /// Wraps a stage.
    pub fn new(stage: F) -> Self {
        Self(stage, PhantomData)
    }
}

/// Form: a function on the borrowed record.
#[derive(Debug)]
pub struct Borrowed<R>(PhantomData<fn() -> R>);
/// Form: a function on the owned record.
#[derive(Debug)]
pub struct Owned<R>(PhantomData<fn() -> R>);
/// Form: a [`Mapper`].
#[derive(Debug)]
pub struct Typed;
/// Form: an [`AsyncMapper`].
#[derive(Debug)]
pub struct AsyncTyped;

impl<F, R> IntoRecordMap<Borrowed<R>> for F
where
    F: Fn(&Record<'_>) -> R + Send + Sync + 'static,
{
    type Returns = R;
}

impl<F, R, A> RecordMap for RecordFunction<F, Borrowed<R>, A>
where
    F: Fn(&Record<'_>) -> R + Send + Sync + 'static,
    R: MapOutput<A, Output: Send + 'static, Error: Into<BoxError> + 'static, Awaited: Send + 'static>
        + 'static,
    A: 'static,
{
    type Output = R::Output;

    #[inline]
    fn call(&self, record: &Record<'_>) -> Call<'_, R::Output> {
        (self.0)(record).into_call()
    }
}

impl<F, R> IntoRecordMap<Owned<R>> for F
where
    F: Fn(OwnedRecord) -> R + Send + Sync + 'static,
{
    type Returns = R;
}

impl<F, R, A> RecordMap for RecordFunction<F, Owned<R>, A>
where
    F: Fn(OwnedRecord) -> R + Send + Sync + 'static,
    R: MapOutput<A, Output: Send + 'static, Error: Into<BoxError> + 'static, Awaited: Send + 'static>
        + 'static,
    A: 'static,
{
    type Output = R::Output;

    fn call(&self, record: &Record<'_>) -> Call<'_, R::Output> {
        (self.0)(record.to_owned()).into_call()
    }
}

impl<M: Mapper> IntoRecordMap<Typed> for M {
    type Returns = Result<M::Output, BoxError>;
}

impl<M: Mapper, A: 'static> RecordMap for RecordFunction<M, Typed, A> {
    type Output = M::Output;

    #[inline]
    fn call(&self, record: &Record<'_>) -> Call<'_, M::Output> {
        Call::Ready(self.0.map(record))
    }
}

impl<M: AsyncMapper> IntoRecordMap<AsyncTyped> for M {
    type Returns = Result<M::Output, BoxError>;
}

impl<M: AsyncMapper, A: 'static> RecordMap for RecordFunction<M, AsyncTyped, A> {
    type Output = M::Output;

    fn call(&self, record: &Record<'_>) -> Call<'_, M::Output> {
        Call::Pending(self.0.map(record.to_owned()))
    }
}

impl<F, In, From, To, R> IntoValueMap<In, From, To, Fits> for F
where
    F: Fn(In) -> R + Send + Sync + 'static,
{
    type Returns = R;
}

impl<F, In, From, To, R> IntoValueMap<In, From, To, Decoy> for F
where
    F: Nothing + Fn(In) -> R + Send + Sync + 'static,
{
    type Returns = R;
}

/// A predicate of a `filter` after a map stage. `Marker` is inferred.
#[diagnostic::on_unimplemented(
    message = "this `filter` does not take what the `{From}` before it emits: it has to be a function of `&{T}`",
    label = "the `{From}` before this `filter` emits `{T}`, which this does not take",
    note = "it may be `fn(&{T}) -> bool`, or a closure of the same form"
)]
pub trait Predicate<T, From, Marker>: Fn(&T) -> bool + Send + Sync + 'static {
    /// Always `X`: see `stage::output`.
    type Via<X>;

    /// Returns the predicate under its type `Via<X>`.
    fn via<X>(stage: X) -> Self::Via<X>;
}

impl<P, T, From> Predicate<T, From, Fits> for P
where
    P: Fn(&T) -> bool + Send + Sync + 'static,
{
    type Via<X> = X;

    fn via<X>(stage: X) -> X {
        stage
    }
}

impl<P, T, From> Predicate<T, From, Decoy> for P
where
    P: Nothing + Fn(&T) -> bool + Send + Sync + 'static,
{
    type Via<X> = X;

    fn via<X>(stage: X) -> X {
        stage
    }
}

impl<F, In, R, A> ValueMap<In> for ValueFunction<F, A>
where
    F: Fn(In) -> R + Send + Sync + 'static,
    R: MapOutput<A, Output: Send + 'static, Error: Into<BoxError> + 'static, Awaited: Send + 'static>,
    A: 'static,
{
    type Output = R::Output;

    #[inline]
    fn call(&self, value: In) -> Call<'_, R::Output> {
        (self.0)(value).into_call()
    }
}
