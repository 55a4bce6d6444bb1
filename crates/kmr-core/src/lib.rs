#![doc = include_str!("../README.md")]

mod dead_letter;
mod error;
mod record;
mod reducer;
mod stage;
mod strategy;

pub use dead_letter::DeadLetter;
pub use error::{BoxError, Error, chain_text};
pub use record::{Header, Headers, OwnedHeader, OwnedRecord, Record, TopicPartition};
pub use reducer::{
    AtShutdown, Attempt, BatchOptions, Chunk, Delivered, Delivery, DeliveryError, Reducer, RejectedRow,
    RetryPolicy, Rows, SourceRange,
};
pub use stage::{AsyncMapper, Mapper};
pub use strategy::Strategy;

/// Re-exported so that reducers and async mappers can be written without a dependency of one's own.
pub use async_trait::async_trait;
