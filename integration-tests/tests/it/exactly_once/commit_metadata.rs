//! Reads and writes a group's offsets and commit metadata from outside, as other tools do, and
//! forges plans.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration_tests::Topic;
use kmr_core::{ClientConfig, TopicPartition, reset_offsets};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

/// Timeout for a group to become empty. The session of a killed member has to end first.
const EMPTY_GROUP_TIMEOUT: Duration = Duration::from_secs(20);

/// Commits for partition 0 as a tool other than kmr would. Returns the offset and metadata that it
/// replaces.
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
        let before = fetch_committed(&consumer, &name)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&name, 0, Offset::Offset(offset))?;
        if let Some(mut element) = list.find_partition(&name, 0) {
            element.set_metadata(metadata.unwrap_or_default());
        }
        let deadline = Instant::now() + EMPTY_GROUP_TIMEOUT;
        while let Err(error) = consumer.commit(&list, CommitMode::Sync) {
            ensure!(Instant::now() < deadline, "{error}");
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(before)
    })
    .await?
}

/// The committed offset and metadata of partition 0. Without a commit the offset is -1.
pub(super) async fn committed(topic: &Topic, group: &str) -> Result<(i64, String)> {
    let mut config = topic.kafka().client_config();
    config.set("group.id", group);
    let name = topic.name().to_owned();
    tokio::task::spawn_blocking(move || fetch_committed(&config.create()?, &name)).await?
}

fn fetch_committed(consumer: &BaseConsumer, topic: &str) -> Result<(i64, String)> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    let committed = consumer.committed_offsets(list, EMPTY_GROUP_TIMEOUT)?;
    let element = committed.find_partition(topic, 0).context("no partition")?;
    Ok((element.offset().to_raw().unwrap_or(-1), element.metadata().to_owned()))
}

/// Replaces one word of commit metadata, and its checksum.
pub(super) fn forged(metadata: &str, index: usize, word: &str) -> String {
    let mut words: Vec<&str> = metadata.split(' ').collect();
    words.pop();
    words[index] = word;
    let content = words.join(" ");
    // FNV-1a, as in kmr-core.
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    let sum = content.bytes().fold(0xCBF2_9CE4_8422_2325, fold);
    format!("{content} {sum:016x}")
}

/// Starts a new epoch of partition 0 at `offset`, once the group is empty.
pub(super) async fn reset(topic: &Topic, group: &str, offset: i64) -> Result<()> {
    let config =
        ClientConfig::new().set("bootstrap.servers", topic.kafka().bootstrap()).set("group.id", group);
    let partition = TopicPartition::new(topic.name(), 0);
    let deadline = Instant::now() + EMPTY_GROUP_TIMEOUT;
    while let Err(error) = reset_offsets(config.clone(), [(partition.clone(), offset)].into()).await {
        ensure!(error.to_string().contains("has consumers") && Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}
