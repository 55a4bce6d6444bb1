//! Brokers that advertise addresses which cannot be reached from here.

use std::time::Duration;

use anyhow::Result;
use integration_tests::{Deadline, Kafka, test_name, unique};
use kmr_core::{ClientConfig, Consumer, Strategy, error_chain};
use kmr_sinks::MemoryWriter;

use crate::in_process::run;

/// A port of the loopback address where nothing listens, outside the range of the tests' servers.
const NOTHING: u16 = 9;

#[tokio::test]
async fn a_start_names_the_addresses_that_brokers_advertise_and_that_do_not_answer() -> Result<()> {
    let (kafka, bootstrap) = Kafka::with_false_listener(NOTHING).await?;
    let topic = kafka.create_topic(test_name!(), 2).await?;
    let group = unique(test_name!());
    let config = ClientConfig::new().set("bootstrap.servers", &bootstrap).set("group.id", &group);
    let strategy = Strategy::new()
        .map(|record: &kmr_core::Record<'_>| Ok::<_, std::convert::Infallible>(record.offset()))
        .reduce(MemoryWriter::new());
    let consumer = Consumer::builder()
        .topics([topic.name()])
        .config(config)
        .connect_timeout(Duration::from_secs(5))
        .shutdown_signal(std::future::pending())
        .strategy(strategy);
    let error = run(consumer)?.ended(Deadline::seconds(60)).await?.expect_err("no leader can be reached");
    let text = error_chain(&error);
    let advertised = format!("127.0.0.1:{NOTHING}");
    for part in ["no leader of topic", topic.name(), &bootstrap, &advertised, "advertised.listeners"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    Ok(())
}
