//! A builder that builds, for the tests of this folder.

use async_trait::async_trait;

use super::{Consumer, ConsumerBuilder};
use crate::config::ClientConfig;
use crate::dead_letter::DeadLetter;
use crate::error::BoxError;
use crate::graph::pipeline::Pipeline;
use crate::record::Record;
use crate::reducer::{Chunk, Delivery, Reducer, TargetTopic};
use crate::strategy::Strategy;
use crate::test_reducer::Collect;

pub(super) fn text(record: &Record<'_>) -> Result<String, std::str::Utf8Error> {
    Ok(std::str::from_utf8(record.payload().unwrap_or_default())?.to_owned())
}

/// A builder that builds, for a broker that does not exist.
pub(super) fn builder() -> ConsumerBuilder<Pipeline> {
    let config = ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1").set("group.id", "g");
    Consumer::builder()
        .topics(["t"])
        .config(config)
        .strategy(Strategy::new().map(text).reduce(Collect::default()))
}

/// A strategy whose dead letters go to `topic` at `brokers`.
pub(super) fn writing_dead_letters_to(topic: &str, brokers: &str) -> Pipeline {
    let errors = ToTopic(TargetTopic::new(topic, brokers));
    Strategy::new().map(text).reduce(Collect::default()).reduce_err(errors)
}

/// A `reduce_err` that is never started.
struct ToTopic(TargetTopic);

#[async_trait]
impl Reducer for ToTopic {
    type Rows = Vec<DeadLetter>;
    type Output = ();

    fn target_topics(&self) -> Vec<TargetTopic> {
        vec![self.0.clone()]
    }

    fn new_rows(&self) -> Vec<DeadLetter> {
        Vec::new()
    }

    fn accept(&mut self, _: Chunk<Vec<DeadLetter>>) -> Result<(), BoxError> {
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        Err("never started".into())
    }
}
