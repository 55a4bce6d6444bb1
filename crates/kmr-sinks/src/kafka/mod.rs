//! Messages to Kafka: [`KafkaWriter`], for what was mapped and for dead letters.
//!
//! `message` is a row; `letter` makes one of a dead letter; `rows` collects them on the map side; `writer` is the reducer; `batch`
//! knows how far each message of a frozen batch has come; `delivery` sends it and reads the reports; `verdict` says what a report
//! means; `link` holds the client, a producer of librdkafka's, and puts another one in its place; `settings` and `start` are
//! what is set and checked before the first record.

mod batch;
mod config;
mod dead_letter;
mod delivery;
mod error;
mod error_code;
mod link;
mod message;
mod rows;
mod startup;
mod telemetry;
mod writer;

pub use dead_letter::DEFAULT_HEADER_PREFIX;
pub use error::KafkaWriteError;
pub use message::KafkaMessage;
pub use rows::KafkaRows;
pub use writer::KafkaWriter;

#[cfg(test)]
mod tests;
