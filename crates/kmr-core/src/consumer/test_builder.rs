//! A builder that builds, for the tests of this folder.

use super::{Consumer, ConsumerBuilder};
use crate::config::ClientConfig;
use crate::graph::pipeline::Pipeline;
use crate::record::Record;
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
