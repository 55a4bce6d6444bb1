//! Members join and leave.

use std::time::Duration;

use kmr_core::{Consumer, Error, OwnedRecord, Strategy};
use tokio::time::timeout;

use crate::kit::{COOPERATIVE, Cluster, Count, EAGER, KIP_848, Running, Seen, committed};

async fn everything_is_delivered_once_and_committed(settings: &[(&str, &str)]) {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(2000);
    let consumer = cluster.consume(settings, &seen);
    seen.until(8000).await;
    let report = consumer.stop().await.unwrap();
    assert_eq!(committed(&report), [Some(2000); 4]);
    // The next consumer of the group continues where this one ended.
    cluster.produce(10);
    let consumer = cluster.consume(settings, &seen);
    seen.until(8040).await;
    let report = consumer.stop().await.unwrap();
    assert_eq!((committed(&report), seen.doubles()), (vec![Some(2010); 4], 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eager_group_delivers_everything_once_and_continues_after_a_restart() {
    everything_is_delivered_once_and_committed(&EAGER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cooperative_group_delivers_everything_once_and_continues_after_a_restart() {
    everything_is_delivered_once_and_committed(&COOPERATIVE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kip_848_group_delivers_everything_once_and_continues_after_a_restart() {
    everything_is_delivered_once_and_committed(&KIP_848).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_member_joins_and_leaves_under_load_without_missing_or_duplicate_records() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    let first = cluster.consume(&KIP_848, &seen);
    let mut produced = 0;
    for round in 0..3 {
        cluster.produce(500);
        produced += 2000;
        seen.until(produced).await;
        let second = cluster.consume(&KIP_848, &seen);
        let joined = async {
            while second.handle.stats().rebalances == 0 || first.handle.stats().rebalances < 2 * round + 2 {
                cluster.produce(5);
                produced += 20;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(30), joined).await.unwrap();
        cluster.produce(500);
        produced += 2000;
        seen.until(produced).await;
        second.stop().await.unwrap();
    }
    seen.until(produced).await;
    first.stop().await.unwrap();
    assert_eq!((seen.len(), seen.doubles()), (produced, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_whose_future_is_dropped_leaves_its_partitions_to_the_next_one() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(100);
    let consumer = cluster.consume(&KIP_848, &seen);
    seen.until(400).await;
    consumer.task.abort();
    cluster.produce(100);
    let next = cluster.consume(&KIP_848, &seen);
    seen.until(800).await;
    assert_eq!(committed(&next.stop().await.unwrap()), [Some(200); 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_kafka_settings_are_named_without_their_values() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    let settings = [("no.such.setting", "hunter2")];
    let error = cluster.consume(&settings, &seen).ended().await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains("no.such.setting") && !text.contains("hunter2"), "{text}");
}

/// R4: the next member gets the partition, and reads the records of the stuck one again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_code_that_is_stuck_keeps_no_partition_past_the_drain_timeout() {
    let (cluster, stuck, seen) = (Cluster::start(), Seen::default(), Seen::default());
    cluster.produce(20);
    let never = async |_: OwnedRecord| {
        std::future::pending::<()>().await;
        Ok::<(i32, i64), Error>((0, 0))
    };
    let consumer = Consumer::builder()
        .topics(["events"])
        .config(cluster.config(&KIP_848))
        .drain_timeout(Duration::from_secs(16))
        .strategy(Strategy::new().map(never).reduce(Count::quick(&stuck)))
        .build()
        .unwrap();
    let first = Running { handle: consumer.handle(), task: tokio::spawn(consumer.run()) };
    let owns = async {
        while first.handle.stats().rebalances == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), owns).await.unwrap();
    let second = cluster.consume(&KIP_848, &seen);
    // Two of the four partitions, after the drain timeout of the first member.
    seen.until(40).await;
    assert_eq!(stuck.len(), 0);
    // Its end takes as long again, so its task is dropped.
    first.task.abort();
    seen.until(80).await;
    second.stop().await.unwrap();
}
