//! Starts Kafka brokers and gives tests a handle to them.

mod broker;
mod builder;
mod message;
mod offsets;
mod produce;
mod read;
mod settings;
mod topic;

pub use self::broker::Kafka;
pub use self::builder::KafkaBuilder;
pub use self::message::{Message, Produced};
pub use self::offsets::{GroupState, Offsets};
pub use self::produce::{ProducerSettings, Transactions};
pub use self::read::StoredRecord;
pub use self::topic::{Topic, TopicSpec};
