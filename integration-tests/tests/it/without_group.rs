//! A consumer without a group, on a real broker.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use integration_tests::{Deadline, Kafka, Message, test_name};
use kmr_core::{ClientConfig, Consumer, Record, ResetPolicy, Strategy};
use kmr_sinks::MemoryWriter;

use crate::in_process::run;

/// `count` records `{prefix}0`, `{prefix}1`, … in partition 0.
fn records(prefix: &'static str, count: u64) -> impl Iterator<Item = Message> + Send + 'static {
    (0..count).map(move |n| Message::new(format!("{prefix}{n}")).partition(0))
}

fn text(record: &Record<'_>) -> Result<String, std::str::Utf8Error> {
    Ok(std::str::from_utf8(record.payload().unwrap_or_default())?.to_owned())
}

#[tokio::test]
async fn a_topic_that_is_created_again_between_two_look_ups_is_read_from_its_start() -> Result<()> {
    let kafka = Kafka::shared().await?;
    let topic = kafka.create_topic(test_name!(), 1).await?;
    topic.produce(records("old ", 1_000)).await?;
    // A deletion, a creation and new records fit between look-ups.
    let config = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("topic.metadata.refresh.interval.ms", "10000");
    let sink = MemoryWriter::new().max_age(Duration::from_millis(50));
    let rows = sink.records();
    let consumer = Consumer::builder()
        .topics([topic.name()])
        .config(config)
        .without_group()
        .offset_reset_policy(ResetPolicy::Earliest)
        .shutdown_signal(std::future::pending())
        .strategy(Strategy::new().map(text).reduce(sink));
    let mut running = run(consumer)?;
    running.until(Deadline::seconds(60), "the old records", async || Ok(rows.len() == 1_000)).await?;
    // A fetch while the new topic is empty would be out of range, and would end the consumer.
    running.handle().pause_all();
    // There is no fact to wait for: the client has paused long before this.
    tokio::time::sleep(Duration::from_secs(1)).await;
    topic.delete().await?;
    let topic = kafka.create_topic_named(&topic, 1).await?;
    topic.produce(records("new ", 5_000)).await?;
    running.handle().resume_all();
    let new = || rows.lock().iter().filter(|row| row.starts_with("new ")).cloned().collect::<BTreeSet<_>>();
    running.until(Deadline::seconds(60), "all new records", async || Ok(new().len() == 5_000)).await?;
    running.stop(Deadline::seconds(30)).await.context("stopping")?;
    Ok(())
}
