#![doc = include_str!("../README.md")]

// In the order in which a record meets them.
mod client;
mod config;
mod consumer;
mod dead_letter;
mod error;
mod graph;
mod member;
mod record;
mod reducer;
mod signals;
mod stage;
mod stats;
mod strategy;
mod telemetry;

#[cfg(feature = "testing")]
pub mod testing;

#[cfg(test)]
mod test_reducer;

pub use config::{ClientConfig, ResetPolicy};
pub use consumer::{Consumer, ConsumerBuilder, ConsumerHandle, PartitionEnd, Report, start_consumer};
pub use dead_letter::DeadLetter;
pub use error::{BoxError, Error, StopConsumer, chain_text};
pub use record::{Header, Headers, OwnedHeader, OwnedRecord, Record, TopicPartition};
pub use reducer::{
    AtShutdown, Attempt, BatchOptions, Chunk, Delivered, Delivery, DeliveryError, Reducer, RejectedRow,
    RetryPolicy, Rows, SourceRange,
};
pub use stage::{AsyncMapper, Mapper, stage_name};
pub use stats::Stats;
pub use strategy::{IntoPipeline, Pipeline, Records, Strategy};

/// Re-exported so that reducers and async mappers can be written without a dependency of one's own.
pub use async_trait::async_trait;

/// What `processing_strategy!` expands to, and the types behind [`Strategy`]'s signatures. Not part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::graph::wiring::{Link, ReduceLink, SourceLink};
    pub use crate::stage::{
        Answer, Apply, Chain, Emission, Filter, Head, IntoRecordMap, IntoValueMap, Many, MapError, Maybe,
        One, Optional, Pass, Predicate, RecordForm, RecordPredicate, RowsOf, RowsOfLetters, Several, Stage,
        StageError, Step, Then, ValueForm,
    };
    pub use crate::strategy::stub;
}
