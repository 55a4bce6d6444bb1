//! Map stages fused into one chain: a value passes all of them in one call.
//!
//! Invariants:
//! 1. A value passes the whole chain with everything that it emits, or fails as a whole.
//! 2. A chain of plain functions emits straight into the receiver: no allocation, no future.
//! 3. A panic of user code becomes the error of the value that it was called with.

use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt;

use super::diagnostics::stage_name;
use super::mapper::{Call, RecordMap, ValueMap};
use super::name::Stage;
use super::output::Optional;
use crate::error::{BoxError, Retryable};
use crate::record::Record;
use crate::util::future::BoxFuture;
use crate::util::panic::panic_message;

/// An error with the stage that it comes from.
#[derive(Debug)]
pub struct StageError {
    /// The stage.
    pub stage: Stage,
    /// Its error, or the text of its panic.
    pub error: BoxError,
}

impl StageError {
    fn new(stage: &Stage, error: impl Into<BoxError>) -> Self {
        Self { stage: stage.clone(), error: error.into() }
    }

    /// Whether the stages may be run again for the same record.
    #[inline]
    pub(crate) fn is_retryable(&self) -> bool {
        self.error.is::<Retryable>()
    }

    fn panicked(stage: &Stage, panic: &(dyn Any + Send)) -> Self {
        Self::new(stage, format!("panicked: {}", panic_message(panic)))
    }
}

/// The result of one call of a chain.
#[allow(missing_debug_implementations, reason = "holds a future")]
pub enum Step<'a, Out> {
    /// Everything was emitted, or the value failed.
    Done(Result<(), StageError>),
    /// A stage is asynchronous: nothing was emitted, the future returns everything.
    Later(BoxFuture<'a, Result<Vec<Out>, StageError>>),
}

/// One or more fused stages.
#[diagnostic::on_unimplemented(
    message = "this strategy has no map stage yet",
    note = "a `reduce` takes what `map`, `filter_map` or `flat_map` emits"
)]
pub trait Chain: Send + Sync + 'static {
    /// What the chain starts from.
    type In<'r>;
    /// The name of its last stage, for the compiler's messages.
    type Last;
    /// What it emits.
    type Out: Send + 'static;

    /// Runs a value through all stages.
    fn start<'a, E: FnMut(Self::Out)>(&'a self, input: Self::In<'_>, emit: &mut E) -> Step<'a, Self::Out>;
}

/// A chain that emits its input: the start of a chain after a reduce.
#[derive(Debug)]
pub struct Pass<T>(PhantomData<fn() -> T>);

impl<T> Default for Pass<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Send + 'static> Chain for Pass<T> {
    type In<'r> = T;
    type Last = stage_name::reduce;
    type Out = T;

    fn start<'a, E: FnMut(T)>(&'a self, input: T, emit: &mut E) -> Step<'a, T> {
        emit(input);
        Step::Done(Ok(()))
    }
}

/// How a stage's output becomes values for the next stage.
pub trait Emission<T>: Send + Sync + 'static {
    /// The name of the stage, for the compiler's messages.
    type Name;
    /// One value.
    type Out: Send + 'static;

    /// Emits the values of one output.
    fn emit<E: FnMut(Self::Out)>(output: T, emit: &mut E);
}

/// `map`: one value.
#[derive(Debug)]
pub struct One;
/// `filter_map`: a value or none. None skips the record, which is finished and committed.
#[derive(Debug)]
pub struct Maybe;
/// `flat_map`: any number of values.
#[derive(Debug)]
pub struct Many;

impl<T: Send + 'static> Emission<T> for One {
    type Name = stage_name::map;
    type Out = T;

    #[inline]
    fn emit<E: FnMut(T)>(output: T, emit: &mut E) {
        emit(output);
    }
}

impl<T: Optional> Emission<T> for Maybe {
    type Name = stage_name::filter_map;
    type Out = T::Value;

    #[inline]
    fn emit<E: FnMut(T::Value)>(output: T, emit: &mut E) {
        if let Some(value) = output.into_option() {
            emit(value);
        }
    }
}

impl<T> Emission<T> for Many
where
    T: IntoIterator,
    T::Item: Send + 'static,
{
    type Name = stage_name::flat_map;
    type Out = T::Item;

    fn emit<E: FnMut(T::Item)>(output: T, emit: &mut E) {
        output.into_iter().for_each(emit);
    }
}

/// A user's stage with its name and its kind of emission.
#[derive(Debug)]
pub struct Apply<F, K> {
    stage: Stage,
    function: F,
    kind: PhantomData<fn() -> K>,
}

impl<F, K> Apply<F, K> {
    /// Names a stage.
    pub fn new(stage: Stage, function: F) -> Self {
        Self { stage, function, kind: PhantomData }
    }

    /// Awaits the output of an asynchronous call.
    async fn finish<T>(&self, call: BoxFuture<'_, Result<T, BoxError>>) -> Result<T, StageError> {
        match AssertUnwindSafe(call).catch_unwind().await {
            Ok(result) => result.map_err(|error| StageError::new(&self.stage, error)),
            Err(panic) => Err(StageError::panicked(&self.stage, &*panic)),
        }
    }

    /// Calls the stage, and emits the output of a call that is ready. One guard is around both,
    /// because every record passes it. The caller awaits the returned future.
    #[inline]
    fn start<'a, T, E: FnMut(K::Out)>(
        &self,
        call: impl FnOnce() -> Call<'a, T>,
        emit: &mut E,
    ) -> Result<Option<BoxFuture<'a, Result<T, BoxError>>>, StageError>
    where
        K: Emission<T>,
    {
        let started = self.guard(|| match call() {
            Call::Ready(output) => output.map(|output| {
                K::emit(output, emit);
                None
            }),
            Call::Pending(call) => Ok(Some(call)),
        })?;
        started.map_err(|error| StageError::new(&self.stage, error))
    }

    /// Emits a stage's output. The iterator of a `flat_map` is user code, too.
    fn emit<T, E: FnMut(K::Out)>(&self, output: T, emit: &mut E) -> Result<(), StageError>
    where
        K: Emission<T>,
    {
        self.guard(|| K::emit(output, emit))
    }

    #[inline]
    fn guard<T>(&self, call: impl FnOnce() -> T) -> Result<T, StageError> {
        // Unwind safety: kmr never reads state of user code, and the caller truncates its own on an
        // error.
        catch_unwind(AssertUnwindSafe(call)).map_err(|panic| StageError::panicked(&self.stage, &*panic))
    }
}

/// A `filter` before the first map stage.
pub type RecordPredicate = Box<dyn Fn(&Record<'_>) -> bool + Send + Sync>;

/// The first stage, on records.
#[allow(missing_debug_implementations, reason = "holds user code")]
pub struct Head<F, K> {
    filters: Vec<(Stage, RecordPredicate)>,
    apply: Apply<F, K>,
}

impl<F, K> Head<F, K> {
    /// The first map stage, after `filters`.
    pub fn new(filters: Vec<(Stage, RecordPredicate)>, apply: Apply<F, K>) -> Self {
        Self { filters, apply }
    }

    fn passes(&self, record: &Record<'_>) -> Result<bool, StageError> {
        for (stage, predicate) in &self.filters {
            let passed = catch_unwind(AssertUnwindSafe(|| predicate(record)))
                .map_err(|panic| StageError::panicked(stage, &*panic))?;
            if !passed {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl<F, K> Chain for Head<F, K>
where
    F: RecordMap,
    K: Emission<F::Output>,
{
    type In<'r> = &'r Record<'r>;
    type Last = K::Name;
    type Out = K::Out;

    #[inline]
    fn start<'a, E: FnMut(K::Out)>(&'a self, record: &Record<'_>, emit: &mut E) -> Step<'a, K::Out> {
        if !self.filters.is_empty() {
            match self.passes(record) {
                Ok(true) => {}
                Ok(false) => return Step::Done(Ok(())),
                Err(error) => return Step::Done(Err(error)),
            }
        }
        let apply = &self.apply;
        match apply.start(|| apply.function.call(record), emit) {
            Ok(None) => Step::Done(Ok(())),
            Ok(Some(call)) => Step::Later(Box::pin(async move {
                let output = apply.finish(call).await?;
                let mut values = Vec::new();
                apply.emit(output, &mut |value| values.push(value))?;
                Ok(values)
            })),
            Err(error) => Step::Done(Err(error)),
        }
    }
}

/// A stage after another.
#[derive(Debug)]
pub struct Then<C, F, K> {
    before: C,
    apply: Apply<F, K>,
}

impl<C, F, K> Then<C, F, K> {
    /// Adds a stage after `before`.
    pub fn new(before: C, apply: Apply<F, K>) -> Self {
        Self { before, apply }
    }
}

impl<C, F, K> Then<C, F, K>
where
    C: Chain,
    F: ValueMap<C::Out>,
    K: Emission<F::Output>,
{
    /// Passes one value through this stage. A call that has to be awaited is added to `waiting`.
    fn pass<'a, E: FnMut(K::Out)>(
        &'a self,
        value: C::Out,
        emit: &mut E,
        waiting: &mut Waiting<'a, F::Output>,
    ) {
        if waiting.error.is_some() {
            return;
        }
        match self.apply.start(|| self.apply.function.call(value), emit) {
            Ok(call) => waiting.calls.extend(call),
            Err(error) => waiting.error = Some(error),
        }
    }

    /// Awaits the calls in order.
    async fn finish(
        &self,
        calls: Vec<BoxFuture<'_, Result<F::Output, BoxError>>>,
    ) -> Result<Vec<K::Out>, StageError> {
        let mut values = Vec::with_capacity(calls.len());
        for call in calls {
            let output = self.apply.finish(call).await?;
            self.apply.emit(output, &mut |value| values.push(value))?;
        }
        Ok(values)
    }

    /// Passes the values of an asynchronous stage through the rest of the chain.
    async fn pass_all(&self, values: Vec<C::Out>) -> Result<Vec<K::Out>, StageError> {
        let mut passed = Vec::with_capacity(values.len());
        for value in values {
            let mut waiting = Waiting::default();
            self.pass(value, &mut |value| passed.push(value), &mut waiting);
            if let Some(error) = waiting.error {
                return Err(error);
            }
            passed.extend(self.finish(waiting.calls).await?);
        }
        Ok(passed)
    }
}

/// The result of one pass through a stage: calls to await, or the first error.
struct Waiting<'a, T> {
    calls: Vec<BoxFuture<'a, Result<T, BoxError>>>,
    error: Option<StageError>,
}

impl<T> Default for Waiting<'_, T> {
    fn default() -> Self {
        Self { calls: Vec::new(), error: None }
    }
}

impl<C, F, K> Chain for Then<C, F, K>
where
    C: Chain,
    F: ValueMap<C::Out>,
    K: Emission<F::Output>,
{
    type In<'r> = C::In<'r>;
    type Last = K::Name;
    type Out = K::Out;

    fn start<'a, E: FnMut(K::Out)>(&'a self, input: C::In<'_>, emit: &mut E) -> Step<'a, K::Out> {
        let mut waiting = Waiting::default();
        let before = self.before.start(input, &mut |value| self.pass(value, emit, &mut waiting));
        match before {
            Step::Done(Err(error)) => Step::Done(Err(error)),
            Step::Done(Ok(())) => match waiting.error {
                Some(error) => Step::Done(Err(error)),
                None if waiting.calls.is_empty() => Step::Done(Ok(())),
                None => Step::Later(Box::pin(self.finish(waiting.calls))),
            },
            Step::Later(before) => Step::Later(Box::pin(async move { self.pass_all(before.await?).await })),
        }
    }
}

/// A predicate after another stage. A value for which it returns `false` is skipped, which finishes
/// it.
#[allow(missing_debug_implementations, reason = "holds user code")]
pub struct Filter<C, P> {
    before: C,
    apply: Apply<P, One>,
}

impl<C, P> Filter<C, P> {
    /// Adds a predicate after `before`.
    pub fn new(before: C, stage: Stage, predicate: P) -> Self {
        Self { before, apply: Apply::new(stage, predicate) }
    }
}

impl<C, P> Chain for Filter<C, P>
where
    C: Chain,
    P: Fn(&C::Out) -> bool + Send + Sync + 'static,
{
    type In<'r> = C::In<'r>;
    type Last = stage_name::filter;
    type Out = C::Out;

    fn start<'a, E: FnMut(C::Out)>(&'a self, input: C::In<'_>, emit: &mut E) -> Step<'a, C::Out> {
        let mut failed = None;
        let before =
            self.before.start(input, &mut |value| match self.apply.guard(|| (self.apply.function)(&value)) {
                Ok(true) if failed.is_none() => emit(value),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            });
        match (before, failed) {
            (Step::Done(Ok(())), Some(error)) => Step::Done(Err(error)),
            (Step::Later(before), _) => Step::Later(Box::pin(async move {
                let mut values = Vec::new();
                for value in before.await? {
                    if self.apply.guard(|| (self.apply.function)(&value))? {
                        values.push(value);
                    }
                }
                Ok(values)
            })),
            (done, _) => done,
        }
    }
}
