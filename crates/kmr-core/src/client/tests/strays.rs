//! Strays: partitions, and their records, that librdkafka has and kmr has not.

use std::collections::BTreeSet;

use super::kit::{COOPERATIVE, Cluster, Driver, KIP_848, partition};
use crate::error::error_chain;
use crate::member::Change;
use crate::record::TopicPartition;

/// librdkafka wakes the reader only when its queue was empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_behind_strays_are_read() {
    let cluster = Cluster::start(2);
    (0..2).for_each(|number| cluster.produce(number, 50));
    let mut driver = cluster.join(KIP_848).await;
    (driver.polls, driver.max_records) = (false, 1);
    driver.owns(2).await;
    // As if the answer to a revoke had been overtaken.
    driver.fetcher.gate.lock().unassigned(&partition(0));
    driver.polls = true;
    driver.until("all records of the other partition", |driver| driver.count(1) == 50).await;
    assert_eq!(driver.count(0), 0, "strays are not returned");
    let rebalances = driver.rebalances;
    cluster.mock.create_topic("second", 1, 1).unwrap();
    driver.subscribe(&["events", "second"]).await;
    driver.until("the next assignment", |driver| driver.rebalances > rebalances).await;
    driver.owned.remove(&partition(0));
    assert_eq!(driver.assigned().await, driver.owned, "the next answer unassigns strays");
    driver.member.close().await.unwrap();
}

/// A topic that is created while a revoke waits for its answer makes a cooperative member join
/// again without the answer. librdkafka then skips each later rebalance, so the client ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cooperative_assignment_that_overtakes_a_revoke_ends_the_client() {
    let cluster = Cluster::start(4);
    let mut options = cluster.options(COOPERATIVE);
    options.client.config = options.client.config.set("topic.metadata.refresh.interval.ms", "100");
    let mut first = Driver::connect(&options).await;
    first.owns(4).await;
    first.subscribe(&["events", "second"]).await;
    let mut second = Driver::connect(&options).await;
    second.subscribe(&["events", "second"]).await;
    first.holds = true;
    let revoked = |driver: &Driver| driver.held.iter().any(|held| held.change == Change::Revoke);
    Driver::both(&mut first, &mut second, |first, _| revoked(first)).await;
    cluster.mock.create_topic("second", 1, 1).unwrap();
    Driver::both(&mut first, &mut second, |first, _| first.fatal.is_some()).await;
    let error = first.fatal.take().unwrap();
    assert!(error.is_retryable() && error_chain(&error).contains("topics changed"), "{error:?}");
    // A new client repairs it.
    first.member.close().await.unwrap();
    let all = BTreeSet::from_iter((0..4).map(partition).chain([TopicPartition::new("second", 0)]));
    second.until("all partitions", |second| second.owned == all).await;
    (0..4).for_each(|number| cluster.produce(number, 20));
    second.until("all records", |second| (0..4).all(|number| second.seen(number).len() == 20)).await;
    second.member.close().await.unwrap();
}
