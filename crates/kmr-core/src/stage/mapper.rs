//! The forms of a map stage: a function on a borrowed record, an async function on an owned one, a type.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use async_trait::async_trait;

use crate::error::BoxError;
use crate::record::{OwnedRecord, Record};

/// A map stage as a type, for mappers that carry state such as a parsed schema.
///
/// Called from the tasks of all partitions at once, so state behind `&self` has to be shareable.
///
/// # Examples
/// ```
/// use kmr_core::{BoxError, Mapper, Record};
///
/// struct Prefix(String);
///
/// impl Mapper for Prefix {
///     type Output = String;
///
///     fn map(&self, record: &Record<'_>) -> Result<String, BoxError> {
///         let text = std::str::from_utf8(record.payload().unwrap_or_default())?;
///         Ok(format!("{}{text}", self.0))
///     }
/// }
/// ```
pub trait Mapper: Send + Sync + 'static {
    /// What goes on to the next stage.
    type Output: Send + 'static;

    /// Maps one record, in place: nothing has been copied yet.
    ///
    /// # Errors
    /// The record goes to `reduce_err` with this error, the others go on.
    fn map(&self, record: &Record<'_>) -> Result<Self::Output, BoxError>;
}

/// A map stage as a type whose work is asynchronous, such as a look-up over HTTP.
#[async_trait]
pub trait AsyncMapper: Send + Sync + 'static {
    /// What goes on to the next stage.
    type Output: Send + 'static;

    /// Maps one record. Records of a partition are mapped one after the other.
    ///
    /// # Errors
    /// The record goes to `reduce_err` with this error, the others go on.
    ///
    /// # Cancel safety
    /// The future may be dropped when the partition is handed back; its record is then read again by the next owner.
    async fn map(&self, record: OwnedRecord) -> Result<Self::Output, BoxError>;
}

/// A future without a name.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The answer of a map stage: there at once, or later.
#[allow(missing_debug_implementations, reason = "holds a future")]
pub enum Call<'a, T> {
    /// The stage is synchronous.
    Ready(Result<T, BoxError>),
    /// The stage is asynchronous.
    Pending(BoxFuture<'a, Result<T, BoxError>>),
}

/// A map stage on records, in the one form that the graph runs.
pub trait RecordMap: Send + Sync + 'static {
    /// What goes on to the next stage.
    type Output: Send + 'static;

    /// Maps one record, or starts to.
    fn call(&self, record: &Record<'_>) -> Call<'_, Self::Output>;
}

/// A map stage on the output of the stage before it.
pub trait ValueMap<In>: Send + Sync + 'static {
    /// What goes on to the next stage.
    type Output: Send + 'static;

    /// Maps one value, or starts to.
    fn call(&self, value: In) -> Call<'_, Self::Output>;
}

/// What `map` takes as a stage on records. `Marker` is inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the first map stage",
    label = "not a map stage on a Kafka record",
    note = "it takes `fn(&Record<'_>) -> Result<T, E>`, `async fn(OwnedRecord) -> Result<T, E>` (its future must be Send), \
            or a type that implements `Mapper` or `AsyncMapper`; `E` is any error that converts into a boxed one"
)]
pub trait IntoRecordMap<Marker> {
    /// What goes on to the next stage.
    type Output: Send + 'static;
    /// The stage.
    type Map: RecordMap<Output = Self::Output>;

    /// Converts.
    fn into_record_map(self) -> Self::Map;
}

/// What `map` takes as a stage on values. `Marker` is inferred.
#[diagnostic::on_unimplemented(
    message = "this map stage does not take what the stage before it emits: expected a function of `{In}`",
    label = "type mismatch with the stage before: it emits `{In}`",
    note = "it takes `fn({In}) -> Result<T, E>` or `async fn({In}) -> Result<T, E>` (its future must be Send); `E` is any error \
            that converts into a boxed one"
)]
pub trait IntoValueMap<In, Marker> {
    /// What goes on to the next stage.
    type Output: Send + 'static;
    /// The stage.
    type Map: ValueMap<In, Output = Self::Output>;

    /// Converts.
    fn into_value_map(self) -> Self::Map;
}

/// A plain function, as a stage.
#[derive(Debug)]
pub struct Function<F, M>(F, PhantomData<fn() -> M>);

/// An async function, as a stage.
#[derive(Debug)]
pub struct AsyncFunction<F, M>(F, PhantomData<fn() -> M>);

/// A [`Mapper`], as a stage.
#[derive(Debug)]
pub struct MapperType<M>(M);

/// An [`AsyncMapper`], as a stage.
#[derive(Debug)]
pub struct AsyncMapperType<M>(M);

impl<F, T, E> RecordMap for Function<F, (T, E)>
where
    F: Fn(&Record<'_>) -> Result<T, E> + Send + Sync + 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
{
    type Output = T;

    fn call(&self, record: &Record<'_>) -> Call<'_, T> {
        Call::Ready((self.0)(record).map_err(Into::into))
    }
}

impl<F, T, E> IntoRecordMap<Function<(), (T, E)>> for F
where
    F: Fn(&Record<'_>) -> Result<T, E> + Send + Sync + 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
{
    type Output = T;
    type Map = Function<F, (T, E)>;

    fn into_record_map(self) -> Self::Map {
        Function(self, PhantomData)
    }
}

impl<F, Fut, T, E> RecordMap for AsyncFunction<F, (Fut, T, E)>
where
    F: Fn(OwnedRecord) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
{
    type Output = T;

    fn call(&self, record: &Record<'_>) -> Call<'_, T> {
        let future = (self.0)(record.to_owned());
        Call::Pending(Box::pin(async move { future.await.map_err(Into::into) }))
    }
}

impl<F, Fut, T, E> IntoRecordMap<AsyncFunction<(), (Fut, T, E)>> for F
where
    F: Fn(OwnedRecord) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
{
    type Output = T;
    type Map = AsyncFunction<F, (Fut, T, E)>;

    fn into_record_map(self) -> Self::Map {
        AsyncFunction(self, PhantomData)
    }
}

impl<M: Mapper> RecordMap for MapperType<M> {
    type Output = M::Output;

    fn call(&self, record: &Record<'_>) -> Call<'_, M::Output> {
        Call::Ready(self.0.map(record))
    }
}

impl<M: Mapper> IntoRecordMap<MapperType<()>> for M {
    type Output = M::Output;
    type Map = MapperType<M>;

    fn into_record_map(self) -> Self::Map {
        MapperType(self)
    }
}

impl<M: AsyncMapper> RecordMap for AsyncMapperType<M> {
    type Output = M::Output;

    fn call(&self, record: &Record<'_>) -> Call<'_, M::Output> {
        Call::Pending(self.0.map(record.to_owned()))
    }
}

impl<M: AsyncMapper> IntoRecordMap<AsyncMapperType<()>> for M {
    type Output = M::Output;
    type Map = AsyncMapperType<M>;

    fn into_record_map(self) -> Self::Map {
        AsyncMapperType(self)
    }
}

impl<F, In, T, E> ValueMap<In> for Function<F, (T, E)>
where
    F: Fn(In) -> Result<T, E> + Send + Sync + 'static,
    In: 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
{
    type Output = T;

    fn call(&self, value: In) -> Call<'_, T> {
        Call::Ready((self.0)(value).map_err(Into::into))
    }
}

impl<F, In, T, E> IntoValueMap<In, Function<(), (T, E)>> for F
where
    F: Fn(In) -> Result<T, E> + Send + Sync + 'static,
    In: 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
{
    type Output = T;
    type Map = Function<F, (T, E)>;

    fn into_value_map(self) -> Self::Map {
        Function(self, PhantomData)
    }
}

impl<F, In, Fut, T, E> ValueMap<In> for AsyncFunction<F, (Fut, T, E)>
where
    F: Fn(In) -> Fut + Send + Sync + 'static,
    In: 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
{
    type Output = T;

    fn call(&self, value: In) -> Call<'_, T> {
        let future = (self.0)(value);
        Call::Pending(Box::pin(async move { future.await.map_err(Into::into) }))
    }
}

impl<F, In, Fut, T, E> IntoValueMap<In, AsyncFunction<(), (Fut, T, E)>> for F
where
    F: Fn(In) -> Fut + Send + Sync + 'static,
    In: 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
{
    type Output = T;
    type Map = AsyncFunction<F, (Fut, T, E)>;

    fn into_value_map(self) -> Self::Map {
        AsyncFunction(self, PhantomData)
    }
}
