//! Messages to Kafka: [`KafkaWriter`], for mapped rows and for dead letters.
//!
//! - Rows: `message` is the row type, `dead_letter` converts a dead letter with its
//!   `added_headers`, `shrink` makes it fit its topic, and `rows` collects messages on the map
//!   side.
//! - Delivery: `writer` is the reducer, `batch` holds the state of each message, and `delivery`
//!   sends them and handles the reports by their `error_code`.
//! - Client: `client` is one producer of librdkafka, and `shared_client` replaces it.
//! - Start: `config` has the settings, and `startup` checks the topic.

mod added_headers;
mod batch;
mod client;
mod config;
mod dead_letter;
mod delivery;
mod error;
mod error_code;
mod message;
mod rows;
mod shared_client;
mod shrink;
mod startup;
mod telemetry;
mod writer;

pub use added_headers::LargeDeadLetter;
pub use dead_letter::DEFAULT_HEADER_PREFIX;
pub use error::KafkaWriteError;
pub use message::KafkaMessage;
pub use rows::KafkaRows;
pub use writer::KafkaWriter;

#[cfg(test)]
mod tests;
