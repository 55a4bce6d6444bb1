#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[macro_use]
mod names;

mod clickhouse;
mod deadline;
mod engine;
mod error;
mod kafka;
mod report;

pub use self::clickhouse::{ClickHouse, ClickHouseBuilder, Database, ServerConfig};
pub use self::deadline::{Deadline, wait_for, wait_until};
pub use self::engine::{Server, free_port};
pub use self::error::{BoxError, Error, ErrorKind, Result};
pub use self::kafka::{
    GroupState, Kafka, KafkaBuilder, Message, Offsets, Produced, ProducerSettings, StoredRecord, Topic,
    TopicSpec, Transactions,
};
pub use self::names::unique;

/// For the macro, and for kmr's own tests. It can change in any release.
#[doc(hidden)]
pub mod __private {
    pub use crate::engine::{Guard, IMAGES};
    pub use crate::names::caller_of;
    pub use crate::report::write_line;
}
