//! What a group has committed with its offsets, read and written from outside: as tools do that know nothing of kmr, and as forgers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration_tests::Topic;
use kmr_core::{ClientConfig, TopicPartition, reset_offsets};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

/// Longest wait for a group to be empty: the session of a member that was killed has to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Commits for partition 0 as a tool would that knows nothing of kmr; returns what was there: offset and metadata.
pub(super) async fn commit(
    topic: &Topic,
    group: &str,
    offset: i64,
    metadata: Option<String>,
) -> Result<(i64, String)> {
    let mut config = topic.kafka().client_config();
    config.set("group.id", group);
    let name = topic.name().to_owned();
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create()?;
        let before = committed(&consumer, &name)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&name, 0, Offset::Offset(offset))?;
        if let Some(mut element) = list.find_partition(&name, 0) {
            element.set_metadata(metadata.unwrap_or_default());
        }
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = consumer.commit(&list, CommitMode::Sync) {
            ensure!(Instant::now() < deadline, "{error}");
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(before)
    })
    .await?
}

/// What is committed for partition 0; offset -1 for nothing.
pub(super) async fn mark(topic: &Topic, group: &str) -> Result<(i64, String)> {
    let mut config = topic.kafka().client_config();
    config.set("group.id", group);
    let name = topic.name().to_owned();
    tokio::task::spawn_blocking(move || committed(&config.create()?, &name)).await?
}

fn committed(consumer: &BaseConsumer, topic: &str) -> Result<(i64, String)> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    let committed = consumer.committed_offsets(list, PATIENCE)?;
    let element = committed.find_partition(topic, 0).context("no partition")?;
    Ok((element.offset().to_raw().unwrap_or(-1), element.metadata().to_owned()))
}

/// A mark with another word at that place, and the checksum that goes with it.
pub(super) fn forged(mark: &str, place: usize, word: &str) -> String {
    let mut words: Vec<&str> = mark.split(' ').collect();
    words.pop();
    words[place] = word;
    let content = words.join(" ");
    // FNV-1a, as in `mark.rs` of kmr-core.
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    let sum = content.bytes().fold(0xCBF2_9CE4_8422_2325, fold);
    format!("{content} {sum:016x}")
}

/// Starts a new epoch of partition 0 at that offset, once the group is empty.
pub(super) async fn reset(topic: &Topic, group: &str, offset: i64) -> Result<()> {
    let config =
        ClientConfig::new().set("bootstrap.servers", topic.kafka().bootstrap()).set("group.id", group);
    let partition = TopicPartition::new(topic.name(), 0);
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = reset_offsets(config.clone(), [(partition.clone(), offset)].into()).await {
        ensure!(error.to_string().contains("has consumers") && Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}
