//! `kmr offsets` on a real Kafka: explicit offsets for a stopped group.

use std::time::Duration;

use anyhow::Result;
use integration_tests::{Kafka, Message, Topic, test_name};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::programs::kmr;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_commits_offsets_with_epoch_metadata_and_rejects_offsets_outside_of_the_log() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 2).await?;
    topic.produce((0..100).map(|n| Message::new("{}").partition(n % 2))).await?;
    let group = topic.name();
    let reset = [
        "offsets",
        "reset",
        "--broker",
        topic.kafka().bootstrap(),
        "--topic",
        group,
        "--group",
        group,
        "--to",
    ];
    let to = async |more: &[&str]| kmr(&[&reset[..], more].concat()).await;

    let (code, output) = to(&["committed"]).await?;
    assert!(code == Some(1) && output.contains("has committed nothing"), "{output}");
    let (code, output) = to(&["earliest", "--dry-run"]).await?;
    assert!(code == Some(0) && output.contains("nothing was committed"), "{output}");
    assert!(topic.committed(group).await?.is_empty());
    let (code, output) = to(&["0=20"]).await?;
    assert!(code == Some(0) && output.contains("0–50"), "{output}");
    assert_eq!(topic.committed(group).await?, [(0, 20)].into());
    assert_ne!(metadata(&topic, group).await?, "", "the metadata names an epoch");
    let (code, output) = to(&["0=51"]).await?;
    assert!(code == Some(1) && output.contains("51"), "{output}");
    let (code, output) = to(&["2=0"]).await?;
    assert!(code == Some(1) && output.contains("no partition 2"), "{output}");
    let (code, output) = to(&["latest"]).await?;
    assert_eq!((code, topic.committed(group).await?), (Some(0), [(0, 50), (1, 50)].into()), "{output}");
    Ok(())
}

/// The commit metadata of partition 0.
async fn metadata(topic: &Topic, group: &str) -> Result<String> {
    let consumer: BaseConsumer = topic.kafka().client_config().set("group.id", group).create()?;
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition(topic.name(), 0);
    let read = move || {
        let list = consumer.committed_offsets(wanted, Duration::from_secs(10))?;
        Ok(list.elements().first().map(|element| element.metadata().to_owned()).unwrap_or_default())
    };
    tokio::task::spawn_blocking(read).await?
}
