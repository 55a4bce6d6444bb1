//! Strays: partitions, and their records, that librdkafka has and kmr has not.

use std::collections::BTreeSet;

use super::kit::{COOPERATIVE, Cluster, Driver, KIP_848, partition};
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
    driver.member.close().await.unwrap();
}

/// A topic that is created while a revoke waits for its answer makes a cooperative member join
/// again without the answer. librdkafka then still has the partitions of the revoke.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cooperative_assignment_that_overtakes_a_revoke_leaves_no_strays() {
    let cluster = Cluster::start(4);
    let mut options = cluster.options(COOPERATIVE);
    options.client.config = options.client.config.set("topic.metadata.refresh.interval.ms", "100");
    let mut first = Driver::connect(&options).await;
    first.owns(4).await;
    first.subscribe(&["events", "second"]).await;
    (0..4).for_each(|number| cluster.produce(number, 20));
    first.until("all", |driver| driver.counts().values().sum::<usize>() == 80).await;
    let mut second = Driver::connect(&options).await;
    second.subscribe(&["events", "second"]).await;
    first.holds = true;
    let revoked = |driver: &Driver| driver.held.iter().any(|held| held.change == Change::Revoke);
    Driver::both(&mut first, &mut second, |first, _| revoked(first)).await;
    let held = first.held.len();
    cluster.mock.create_topic("second", 1, 1).unwrap();
    Driver::both(&mut first, &mut second, |first, _| first.held.len() > held).await;
    first.holds = false;
    let changes: Vec<Change> = first.held.iter().map(|held| held.change).collect();
    assert!(changes.ends_with(&[Change::Revoke, Change::Assign]), "{changes:?}");
    for rebalance in std::mem::take(&mut first.held) {
        first.answer(&rebalance).await;
    }
    Driver::both(&mut first, &mut second, |first, second| {
        first.owned.len() + second.owned.len() == 5 && first.owned.is_disjoint(&second.owned)
    })
    .await;
    assert_eq!(first.assigned().await, first.owned, "librdkafka has what kmr has");
    (0..4).for_each(|number| cluster.produce(number, 20));
    let all: Vec<i64> = (0..40).collect();
    let read = |first: &Driver, second: &Driver, number| {
        let of = |driver: &Driver| driver.seen(number).into_iter().collect::<BTreeSet<i64>>();
        of(first).union(&of(second)).copied().collect::<Vec<i64>>() == all
    };
    Driver::both(&mut first, &mut second, |first, second| (0..4).all(|number| read(first, second, number)))
        .await;
    let owned: BTreeSet<TopicPartition> = first.owned.union(&second.owned).cloned().collect();
    assert_eq!(owned.len(), 5);
    assert!(first.fatal.is_none() && second.fatal.is_none(), "{:?} {:?}", first.fatal, second.fatal);
    second.member.close().await.unwrap();
    first.member.close().await.unwrap();
}
