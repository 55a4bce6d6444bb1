//! The types that a map function may return: a `Result`, or a future of one.
//!
//! Each check has an associated type `Via<X> = X`. The builder's methods name the type of a stage
//! through it, so a stage that fails a check has no known type. Then rustc complains once, and not
//! again at every later stage.

use std::future::Future;
use std::pin::Pin;

use super::diagnostics::{Decoy, Fits, Nothing};
use super::mapper::Call;
use crate::error::BoxError;

/// A type that a map function may return. `Marker` is inferred: `Now` or `Later`.
#[diagnostic::on_unimplemented(
    message = "a map stage returns `Result<T, E>` or a future of one, not `{Self}`",
    label = "the function of this stage returns `{Self}`",
    note = "return `Ok(value)` from a function that cannot fail, with `std::convert::Infallible` as the error"
)]
pub trait MapOutput<Marker> {
    /// What the next stage receives.
    type Output;
    /// Why the record failed.
    type Error;
    /// What kmr awaits, and so has to be `Send`.
    type Awaited;

    /// The output in the form that the graph runs.
    fn into_call<'a>(self) -> Call<'a, Self::Output>
    where
        Self::Output: Send + 'static,
        Self::Error: Into<BoxError> + 'static,
        Self::Awaited: Send + 'static;
}

/// The output is ready at once.
#[derive(Debug)]
pub struct Now;

/// The output has to be awaited.
#[derive(Debug)]
pub struct Later;

impl<T, E> MapOutput<Now> for Result<T, E> {
    type Output = T;
    type Error = E;
    type Awaited = ();

    #[inline]
    fn into_call<'a>(self) -> Call<'a, T>
    where
        T: Send + 'static,
        E: Into<BoxError> + 'static,
    {
        Call::Ready(self.map_err(Into::into))
    }
}

/// The output of a map stage that is ready for most records and waits for a few: a decoder that
/// fetches a schema once, for example.
///
/// A ready output costs no allocation and no future, unlike that of an asynchronous stage. The
/// stage is a function of the borrowed [`Record`](crate::Record), so it copies what its future
/// needs.
///
/// # Cancel safety
/// The future may be dropped when the partition is revoked. The next owner reads its record again.
///
/// # Examples
/// ```
/// use kmr_core::{Mapped, Record};
///
/// /// Looks a name up in memory, and in a service if it is not there.
/// fn name(record: &Record<'_>) -> Mapped<String> {
///     match record.partition() {
///         0 => Mapped::Ready(Ok("known".to_owned())),
///         partition => Mapped::Pending(Box::pin(ask(partition))),
///     }
/// }
/// # async fn ask(_: i32) -> Result<String, kmr_core::BoxError> { Ok(String::new()) }
/// # let strategy = kmr_core::Strategy::new().map(name);
/// ```
#[allow(missing_debug_implementations, reason = "holds a future")]
pub enum Mapped<T> {
    /// The output, or the error of the record.
    Ready(Result<T, BoxError>),
    /// A future of the same.
    Pending(Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>),
}

/// The output is ready at once, or has to be awaited.
#[derive(Debug)]
pub struct NowOrLater;

impl<T> MapOutput<NowOrLater> for Mapped<T> {
    type Output = T;
    type Error = BoxError;
    type Awaited = ();

    #[inline]
    fn into_call<'a>(self) -> Call<'a, T>
    where
        T: Send + 'static,
    {
        match self {
            Self::Ready(output) => Call::Ready(output),
            Self::Pending(output) => Call::Pending(output),
        }
    }
}

// Otherwise rustc reports, for any type but a `Result`, that it is not a future.
#[diagnostic::do_not_recommend]
impl<Fut, T, E> MapOutput<Later> for Fut
where
    Fut: Future<Output = Result<T, E>>,
{
    type Output = T;
    type Error = E;
    type Awaited = Fut;

    fn into_call<'a>(self) -> Call<'a, T>
    where
        T: Send + 'static,
        E: Into<BoxError> + 'static,
        Fut: Send + 'static,
    {
        Call::Pending(Box::pin(async move { self.await.map_err(Into::into) }))
    }
}

// See `Fits`. No type implements `Nothing`.
impl<R: Nothing> MapOutput<Decoy> for R {
    type Output = ();
    type Error = BoxError;
    type Awaited = ();

    fn into_call<'a>(self) -> Call<'a, ()> {
        Call::Ready(Ok(()))
    }
}

/// An error that a map stage may return. `Marker` is inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a map stage",
    label = "this stage fails with `{Self}`, which does not convert into `kmr_core::BoxError`",
    note = "implement `std::error::Error` for it, and make it `Send + Sync + 'static`; `String` and `&'static str` will do, too"
)]
pub trait MapError<Marker>: Into<BoxError> + 'static {
    /// Always `X`: see the module.
    type Via<X>;

    /// Returns the stage under its type `Via<X>`.
    fn via<X>(stage: X) -> Self::Via<X>;
}

impl<E: Into<BoxError> + 'static> MapError<Fits> for E {
    type Via<X> = X;

    fn via<X>(stage: X) -> X {
        stage
    }
}

impl<E: Nothing + Into<BoxError> + 'static> MapError<Decoy> for E {
    type Via<X> = X;

    fn via<X>(stage: X) -> X {
        stage
    }
}

/// The type in the `Result` of a `filter_map`.
#[diagnostic::on_unimplemented(
    message = "a `filter_map` stage returns `Result<Option<T>, E>`, not a `Result` of `{Self}`",
    label = "this stage emits `{Self}`, which is not an `Option`",
    note = "use `map` for a stage that emits one value for each that it takes"
)]
pub trait Optional {
    /// What the next stage receives.
    type Value: Send + 'static;
    /// Always `X`: see the module.
    type Via<X>;

    /// Returns the stage under its type `Via<X>`.
    fn via<X>(stage: X) -> Self::Via<X>;

    /// As an option.
    fn into_option(self) -> Option<Self::Value>;
}

impl<T: Send + 'static> Optional for Option<T> {
    type Value = T;
    type Via<X> = X;

    fn via<X>(stage: X) -> X {
        stage
    }

    fn into_option(self) -> Option<T> {
        self
    }
}

/// The type in the `Result` of a `flat_map`. `Marker` is inferred.
#[diagnostic::on_unimplemented(
    message = "a `flat_map` stage returns a `Result` of something that can be iterated over, not of `{Self}`",
    label = "this stage emits `{Self}`, which is not an iterator, and no collection either",
    note = "use `map` for a stage that emits one value for each that it takes"
)]
pub trait Several<Marker>: IntoIterator<Item: Send + 'static> {
    /// Always `X`: see the module.
    type Via<X>;

    /// Returns the stage under its type `Via<X>`.
    fn via<X>(stage: X) -> Self::Via<X>;
}

impl<T: IntoIterator<Item: Send + 'static>> Several<Fits> for T {
    type Via<X> = X;

    fn via<X>(stage: X) -> X {
        stage
    }
}

impl<T: Nothing + IntoIterator<Item: Send + 'static>> Several<Decoy> for T {
    type Via<X> = X;

    fn via<X>(stage: X) -> X {
        stage
    }
}

/// The type of a `map` stage, through its checks.
pub(crate) type Via<R, A, D, X> = <<R as MapOutput<A>>::Error as MapError<D>>::Via<X>;
/// The type of a `filter_map` stage, through its checks.
pub(crate) type ViaOptional<R, A, D, X> = <<R as MapOutput<A>>::Output as Optional>::Via<Via<R, A, D, X>>;
/// The type of a `flat_map` stage, through its checks.
pub(crate) type ViaSeveral<R, A, D, I, X> = <<R as MapOutput<A>>::Output as Several<I>>::Via<Via<R, A, D, X>>;

/// A `map` stage under the type that its checks give it.
pub(crate) fn via<R, A, D, X>(stage: X) -> Via<R, A, D, X>
where
    R: MapOutput<A, Error: MapError<D>>,
{
    <R::Error as MapError<D>>::via(stage)
}

/// A `filter_map` stage under the type that its checks give it.
pub(crate) fn via_optional<R, A, D, X>(stage: X) -> ViaOptional<R, A, D, X>
where
    R: MapOutput<A, Output: Optional, Error: MapError<D>>,
{
    <R::Output as Optional>::via(via::<R, A, D, X>(stage))
}

/// A `flat_map` stage under the type that its checks give it.
pub(crate) fn via_several<R, A, D, I, X>(stage: X) -> ViaSeveral<R, A, D, I, X>
where
    R: MapOutput<A, Output: Several<I>, Error: MapError<D>>,
{
    <R::Output as Several<I>>::via(via::<R, A, D, X>(stage))
}
