//! Starting positions of consumers.

use std::time::Duration;

use kmr_core::{Consumer, Error, StartAt, Strategy, TopicPartition};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, DefaultConsumerContext};
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::timeout;

use crate::kit::{Cluster, Count, KIP_848, Running, Seen, committed, place};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_after_the_end_of_the_log_stops_with_both_log_bounds() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(100);
    let other: BaseConsumer<DefaultConsumerContext> = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &cluster.servers)
        .set("group.id", "group")
        .create()
        .unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("events", 2, Offset::Offset(5000)).unwrap();
    other.commit(&offsets, CommitMode::Sync).unwrap();
    drop((offsets, other));
    let error = cluster.consume(&KIP_848, &seen).ended().await.err().unwrap();
    assert!(
        matches!(&error, Error::OffsetOutOfRange { partition, low: 0, high: 100, .. } if partition.partition() == 2),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_reset_policy_stops_where_nothing_is_committed() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(10);
    let settings = [KIP_848[0], ("auto.offset.reset", "error")];
    let error = cluster.consume(&settings, &seen).ended().await.err().unwrap();
    assert!(matches!(error, Error::OffsetOutOfRange { offset: None, low: 0, high: 10, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_is_where_the_group_started_first_also_after_a_restart_without_records() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(10);
    let settings = [KIP_848[0], ("auto.offset.reset", "latest")];
    let consumer = cluster.consume(&settings, &seen);
    let committed = async {
        while consumer.handle.stats().committed.len() < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), committed).await.unwrap();
    consumer.stop().await.unwrap();
    cluster.produce(5);
    let consumer = cluster.consume(&settings, &seen);
    seen.until(20).await;
    consumer.stop().await.unwrap();
    assert_eq!(seen.0.lock().unwrap().keys().map(|(_, offset)| *offset).min(), Some(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explicit_offsets_are_chosen_once_and_committed() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(10);
    let start = |offset| {
        let offsets = StartAt::offsets((0..4).map(|n| (TopicPartition::new("events", n), offset)));
        let consumer = Consumer::builder()
            .topics(["events"])
            .config(cluster.config(&KIP_848))
            .start_at(offsets)
            .commit_interval(Duration::from_millis(100))
            .strategy(Strategy::new().map(place).reduce(Count::quick(&seen)))
            .build()
            .unwrap();
        Running { handle: consumer.handle(), task: tokio::spawn(consumer.run()) }
    };
    let consumer = start(7);
    seen.until(12).await;
    consumer.stop().await.unwrap();
    cluster.produce(1);
    let consumer = start(2);
    seen.until(16).await;
    let report = consumer.stop().await.unwrap();
    assert_eq!((seen.len(), seen.doubles(), committed(&report)), (16, 0, vec![Some(11); 4]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_group_every_run_reads_everything() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(100);
    for run in 1..=2 {
        let consumer = Consumer::builder()
            .topics(["events"])
            .config(kmr_core::ClientConfig::new().set("bootstrap.servers", &cluster.servers))
            .without_group()
            .strategy(Strategy::new().map(place).reduce(Count::quick(&seen)))
            .build()
            .unwrap();
        let running = Running { handle: consumer.handle(), task: tokio::spawn(consumer.run()) };
        let all_of_this_run = async {
            while seen.times() < run * 400 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(30), all_of_this_run).await.unwrap();
        running.stop().await.unwrap();
    }
    assert_eq!((seen.len(), seen.times()), (400, 800));
}
