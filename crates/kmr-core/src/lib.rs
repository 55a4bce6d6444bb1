#![doc = include_str!("../README.md")]

#[cfg(feature = "testing")]
pub(crate) mod bench_parts;
mod circuit_breaker;
mod client;
pub(crate) mod commit_metadata;
mod config;
mod consumer;
mod credentials;
mod dead_letter;
mod error;
#[cfg_attr(not(feature = "metrics"), expect(unreachable_pub, reason = "only a status has events"))]
mod event;
pub mod fold;
mod fork;
mod graph;
mod health;
mod listeners;
pub(crate) mod log_id;
mod member;
mod metrics;
pub(crate) mod partition_report;
mod record;
mod reducer;
mod signals;
mod spans;
mod stage;
mod stats;
#[cfg(feature = "metrics")]
mod status;
mod strategy;
mod telemetry;
mod trace_context;
pub(crate) mod util;
mod watchdog;

#[cfg(any(test, feature = "testing"))]
mod test_records;
#[cfg(feature = "embedded")]
pub mod testing;

#[cfg(test)]
mod test_reducer;

pub use circuit_breaker::CircuitBreaker;
pub use client::{reset_offsets, subscription_matches};
pub use config::{ClientConfig, ConfigWarning, ResetPolicy, StartAt, Until, WarningKind};
pub use consumer::{Consumer, ConsumerBuilder, ConsumerHandle, RunReport, start_consumer};
pub use credentials::{Token, TokenProvider};
pub use dead_letter::DeadLetter;
pub use error::{BoxError, CodedError, Error, Retryable, StopConsumer, error_chain};
#[cfg(feature = "metrics")]
pub use event::{Event, EventKind};
pub use fold::{Fold, FoldReducer, FoldRows};
pub use fork::{Either, Fork, ForkOutput, ForkRows};
pub use graph::pipeline::Pipeline;
pub use health::{Health, PartitionHealth, UnreachableLeader};
pub use listeners::{CommitEvent, RebalanceEvent};
#[cfg(feature = "metrics")]
pub use metrics::{Metric, MetricsFormat, StageMetrics};
pub use partition_report::PartitionReport;
pub use record::{Header, Headers, OwnedHeader, OwnedRecord, Record, TopicPartition};
pub use reducer::{
    Attempt, BatchOptions, Block, Chunk, Delivered, Delivery, DeliveryError, Fingerprint, PartialBatch,
    Reducer, RejectedRow, RetryPolicy, Rows, SourceRange, TargetTopic,
};
pub use stage::{AsyncMapper, Concurrency, Mapped, Mapper, stage_name};
pub use stats::Stats;
#[cfg(feature = "metrics")]
pub use status::{ConsumerState, DeliveryStatus, PartitionStatus, StageStatus, Status};
pub use strategy::{IntoPipeline, Records, Strategy};
pub use trace_context::TraceContext;
pub use watchdog::Watchdog;

/// Writes a [`Strategy`] as a list of stages, in the order in which records meet them.
///
/// `name => value` becomes the builder call `.name(value)` on [`Strategy::new()`], and nothing
/// more: the same calls can be written by hand. The macro adds clear errors. It rejects an invalid
/// list at the wrong stage, with a message in terms of stages.
///
/// | stage | what it takes | how often |
/// |---|---|---|
/// | `filter` | a predicate: on [`Record`]s before the first map stage, later on the output of the stage before it | any |
/// | `map` | a map stage: the first on records, the others on the output of the stage before them | one map stage at least |
/// | `filter_map` | the same, returning `Result<Option<T>, E>`; `None` skips the record | |
/// | `flat_map` | the same, returning a `Result` of anything that can be iterated over | |
/// | `reduce` | a [`Reducer`]; its output for a batch goes to the next stage | one at least |
/// | `reduce_err` | a [`Reducer`] of [`DeadLetter`]s, for records that failed at any stage | one at most, as the last stage |
///
/// Settings are placed among the stages before the first `reduce`, in any order, once each:
///
/// | setting | what it takes | default |
/// |---|---|---|
/// | `map_concurrency` | a number or a [`Concurrency`]: how many records of a partition async map stages process at once | 1 |
/// | `map_retry` | a [`RetryPolicy`] for records whose map stage returns [`Retryable`] | [`RetryPolicy::default`] |
///
/// Values are any expressions. The comma after the last stage and the inner braces are optional.
/// The expansion uses absolute paths (`::kmr_core::…`). So it needs no import, but it does not work
/// if the dependency was renamed in `Cargo.toml`.
///
/// # Functions and closures
/// A map stage is one of these, where `E` is any error that converts into a [`BoxError`]:
///
/// | | on records (the first map stage) | on the values `T` of the stage before |
/// |---|---|---|
/// | function | `fn(&Record<'_>) -> Result<U, E>` | `fn(T) -> Result<U, E>` |
/// | function that seldom waits | `fn(&Record<'_>) -> Mapped<U>`: see [`Mapped`] | `fn(T) -> Mapped<U>` |
/// | async function | `async fn(OwnedRecord) -> Result<U, E>`; its future is `Send` | `async fn(T) -> Result<U, E>`; the same |
/// | type | [`Mapper`], [`AsyncMapper`] | |
/// | closure | <code>\|record: &Record<'_>\| …</code> or <code>\|record: OwnedRecord\| async move { … }</code>, with the type written out | <code>\|value\| …</code> or <code>\|value\| async move { … }</code>, the type is inferred |
/// | async closure | <code>async \|record: OwnedRecord\| …</code> | <code>async \|value: T\| …</code>, with the type written out |
///
/// Predicates need no types: <code>filter => \|record\| record.key().is_some()</code>. If nothing
/// else determines a closure's error type, write `Ok::<_, Infallible>(…)`.
///
/// # Errors
/// All mistakes in a list are reported at once, each at its stage:
///
/// * no stages, or something other than a list of stages;
/// * an unknown stage or setting (with the nearest name), a setting after a `reduce` or a second
///   time, a missing `=>`, value or comma, a value that is not an expression;
/// * no map stage, or a `reduce` before the first one; no `reduce`; a `reduce_err` that is not the
///   last stage; a second one.
///
/// The compiler checks the types in the builder's calls, and reports errors at the same place. A
/// stage that does not fit gives *this `reduce` does not take what the `map` before it emits*, with
/// similar texts for `map`, `filter_map`, `flat_map`, `filter` and `reduce_err`. Other errors are:
///
/// * a map stage that returns no `Result`, whose error type is not an error, or whose future is not
///   `Send`;
/// * a reducer that does not implement [`Reducer`].
///
/// # Examples
/// ```
/// use std::convert::Infallible;
/// use kmr_core::{DeadLetter, IntoPipeline, Record, processing_strategy};
/// # use std::marker::PhantomData;
/// # use kmr_core::{async_trait, Attempt, BoxError, Chunk, Delivered, Delivery, DeliveryError, Reducer};
/// # struct Writer<T>(PhantomData<fn() -> T>);
/// # impl<T> Writer<T> { fn new() -> Self { Self(PhantomData) } }
/// # struct Nothing;
/// # #[async_trait]
/// # impl<T: Send + 'static> Reducer for Writer<T> {
/// #     type Rows = Vec<T>;
/// #     type Output = usize;
/// #     fn new_rows(&self) -> Vec<T> { Vec::new() }
/// #     fn accept(&mut self, _: Chunk<Vec<T>>) -> Result<(), BoxError> { Ok(()) }
/// #     fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = usize>>, BoxError> { Ok(Box::new(Nothing)) }
/// # }
/// # #[async_trait]
/// # impl Delivery for Nothing {
/// #     type Output = usize;
/// #     async fn deliver(&self, _: Attempt) -> Result<Delivered<usize>, DeliveryError> { Ok(Delivered::new(0)) }
/// # }
///
/// struct Order {
///     customer: String,
///     amount: u32,
/// }
///
/// fn parse(record: &Record<'_>) -> Result<Order, BoxError> {
///     let text = std::str::from_utf8(record.payload().unwrap_or_default())?;
///     let (customer, amount) = text.split_once(':').ok_or("no colon")?;
///     Ok(Order { customer: customer.to_owned(), amount: amount.parse()? })
/// }
///
/// async fn name_of(order: Order) -> Result<(String, u32), Infallible> {
///     Ok((order.customer, order.amount)) // after a look-up over HTTP, for example
/// }
///
/// let strategy = processing_strategy!({
///     map_concurrency => 16,
///     filter => |record| record.payload().is_some(),
///     map => parse,
///     filter => |order| order.amount > 0,
///     map => name_of,
///     reduce => Writer::<(String, u32)>::new(),
///     map => |rows| Ok::<_, Infallible>(format!("{rows} rows")),
///     reduce => Writer::<String>::new(),
///     reduce_err => Writer::<DeadLetter>::new(),
/// });
/// let pipeline = strategy.into_pipeline();
/// ```
pub use kmr_macros::processing_strategy;

/// Re-exported, so that a crate with reducers or async mappers needs no dependency of its own.
pub use async_trait::async_trait;

/// The expansion of `processing_strategy!`, the types in [`Strategy`]'s signatures, and items that
/// kmr's own crates share. Not part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::client::{
        Bootstrap, Credentials, GroupDescription, GroupError, GroupMember, GroupOffset, LiveClient,
        LiveClients, describe_group, group_offsets, message_headers,
    };
    pub use crate::credentials::files::FileContents;
    pub use crate::graph::build::{Link, ReduceLink, SourceLink};
    pub use crate::stage::{
        Apply, Chain, Emission, Filter, Head, IntoRecordMap, IntoValueMap, Many, MapError, MapOutput, Maybe,
        One, Optional, Pass, Predicate, RecordFunction, RecordPredicate, RowsOf, RowsOfDeadLetters, Several,
        Stage, StageError, Step, Then, ValueFunction,
    };
    pub use crate::strategy::stub;
}

/// Parts of the graph for benchmarks. Not part of the API.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod __parts {
    #[cfg(feature = "metrics")]
    pub use crate::bench_parts::Instruments;
    pub use crate::bench_parts::{Discard, Handover, batch, track};
}
