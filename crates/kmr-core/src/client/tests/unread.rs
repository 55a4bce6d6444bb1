//! How far logs reach and how far they are read, and partitions that librdkafka fetches no more.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::kit::{COOPERATIVE, Cluster, Driver, EAGER, KIP_848, Settings, partition};
use crate::client::context::Client;
use crate::member::LogReach;

/// Pauses a partition in librdkafka, without kmr's knowledge.
async fn pause_secretly(driver: &Driver, number: i32) {
    let pause = move |client: &Client| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("events", number, Offset::Invalid).unwrap();
        client.pause(&list).unwrap();
    };
    driver.client.call("pausing", pause).await.unwrap();
}

/// How far a partition reaches that is read up to `position`. Serves the member meanwhile.
async fn reach(driver: &mut Driver, number: i32, position: i64) -> Option<LogReach> {
    let member = driver.member.clone();
    let positions = [(partition(number), Some(position))];
    let asked = tokio::spawn(async move { member.log_reach(&positions).await });
    while !asked.is_finished() {
        driver.during(Duration::from_millis(50)).await;
    }
    asked.await.unwrap().remove(&partition(number))
}

async fn a_partition_that_is_paused_in_librdkafka_is_read_after_a_restart(settings: Settings) {
    let cluster = Cluster::start(2);
    (0..2).for_each(|number| cluster.produce(number, 20));
    let mut driver = cluster.join(settings).await;
    driver.until("all", |driver| driver.counts().values().sum::<usize>() == 40).await;
    assert_eq!(reach(&mut driver, 0, 20).await, Some(LogReach { end: 20, fetched: 20 }));
    pause_secretly(&driver, 0).await;
    (0..2).for_each(|number| cluster.produce(number, 10));
    driver.until("the other partition", |driver| driver.count(1) == 30).await;
    assert_eq!(reach(&mut driver, 0, 20).await, Some(LogReach { end: 30, fetched: 20 }));
    assert_eq!((driver.count(0), driver.failures.len()), (20, 0), "silent");
    driver.member.pause(&[partition(0)], true).await.unwrap();
    driver.member.restart(&[(partition(0), 20)]).await.unwrap();
    driver.member.pause(&[partition(0)], false).await.unwrap();
    driver.until("the rest", |driver| driver.seen(0).len() == 30).await;
    assert_eq!(driver.taken[&0], (0..30).collect::<Vec<i64>>());
    assert_eq!(driver.seen(1).len(), 30);
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_paused_in_librdkafka_is_read_after_a_restart_in_an_eager_group() {
    a_partition_that_is_paused_in_librdkafka_is_read_after_a_restart(EAGER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_paused_in_librdkafka_is_read_after_a_restart_in_a_cooperative_group() {
    a_partition_that_is_paused_in_librdkafka_is_read_after_a_restart(COOPERATIVE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_paused_in_librdkafka_is_read_after_a_restart_in_a_kip_848_group() {
    a_partition_that_is_paused_in_librdkafka_is_read_after_a_restart(KIP_848).await;
}

/// The mock has no transactions. Here kmr's positions are as if offset 19 were a transaction marker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_that_librdkafka_has_fetched_and_that_have_no_record_are_read() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 20);
    let mut driver = cluster.join(KIP_848).await;
    driver.until("all", |driver| driver.count(0) == 20).await;
    assert_eq!(reach(&mut driver, 0, 19).await, Some(LogReach { end: 20, fetched: 19 }), "a lost record");
    driver.fetcher.gate.lock().sought(&partition(0), 19);
    // The statistics may be a moment old.
    driver.during(Duration::from_secs(2)).await;
    assert_eq!(reach(&mut driver, 0, 19).await, Some(LogReach { end: 20, fetched: 20 }));
    driver.member.close().await.unwrap();
}

/// librdkafka ends the forwarding when it stops a fetcher.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_not_forwarded_any_more_is_read_once_its_position_is_compared() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 20);
    let mut driver = cluster.join(KIP_848).await;
    driver.until("all", |driver| driver.count(0) == 20).await;
    driver.fetcher.queue.forward_nowhere("events", 0);
    cluster.produce(0, 10);
    driver.during(Duration::from_secs(1)).await;
    assert_eq!(driver.count(0), 20, "silent");
    assert_eq!(reach(&mut driver, 0, 20).await.map(|reach| reach.end), Some(30));
    driver.until("the rest", |driver| driver.count(0) == 30).await;
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_known_of_a_partition_whose_leader_is_down() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 20);
    let mut driver = cluster.join(KIP_848).await;
    driver.until("all", |driver| driver.count(0) == 20).await;
    cluster.mock.broker_down(1).unwrap();
    assert_eq!(reach(&mut driver, 0, 20).await, None);
    cluster.mock.broker_up(1).unwrap();
    while reach(&mut driver, 0, 20).await.is_none() {}
    driver.member.close().await.unwrap();
}
