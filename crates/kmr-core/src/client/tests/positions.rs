//! Pauses, seeks, and fetchers that have ended.

use std::time::Duration;

use super::kit::{COOPERATIVE, Cluster, Driver, EAGER, KIP_848, Settings, partition};
use crate::error::error_chain;
use crate::member::PartitionFailure;

/// Long enough for a fetch to return, if one had been sent.
const A_WHILE: Duration = Duration::from_millis(700);

fn offsets(from: i64, to: i64) -> Vec<i64> {
    (from..to).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_partition_stops_and_continues_without_loss() {
    let cluster = Cluster::start(2);
    let mut driver = cluster.join(KIP_848).await;
    driver.owns(2).await;
    for round in 0..5i64 {
        cluster.produce(0, 200);
        let before = driver.count(0);
        driver.until("some records", |driver| driver.count(0) > before).await;
        driver.member.pause(&[partition(0)], true).await.unwrap();
        let paused_at = driver.count(0);
        cluster.produce(0, 100);
        cluster.produce(1, 100);
        let others = usize::try_from(round + 1).unwrap() * 100;
        driver.until("records of the other partition", |driver| driver.count(1) == others).await;
        driver.during(A_WHILE).await;
        assert_eq!(driver.count(0), paused_at, "it is paused");
        driver.member.pause(&[partition(0)], false).await.unwrap();
        let all = (round + 1) * 300;
        driver.until("all", |driver| driver.seen(0).last() == Some(&(all - 1))).await;
        assert_eq!(driver.seen(0), offsets(0, all));
    }
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeking_back_reads_again_and_seeking_forward_skips() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 1000);
    let mut driver = cluster.join(KIP_848).await;
    driver.until("a first batch", |driver| driver.count(0) >= 100).await;
    for (round, (to, from_there)) in [(50, 950), (0, 1000), (990, 10), (1000, 0)].into_iter().enumerate() {
        driver.member.seek(&[(partition(0), to)]).await.unwrap();
        driver.taken.clear();
        let more = 20 * (i64::try_from(round).unwrap() + 1);
        cluster.produce(0, 20);
        let last = 1000 + more - 1;
        driver.until("the end", |driver| driver.seen(0).last() == Some(&last)).await;
        assert_eq!(driver.taken[&0], offsets(to, last + 1), "seek to {to}");
        assert!(driver.count(0) >= from_there);
    }
    driver.member.close().await.unwrap();
}

/// librdkafka pauses every partition at a rebalance, and continues at the position that it assumes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seek_holds_over_a_pause_before_anything_was_read() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 500);
    let mut driver = cluster.join(KIP_848).await;
    driver.until("all", |driver| driver.count(0) == 500).await;
    driver.member.seek(&[(partition(0), 20)]).await.unwrap();
    driver.member.pause(&[partition(0)], true).await.unwrap();
    driver.taken.clear();
    driver.during(A_WHILE).await;
    assert_eq!(driver.count(0), 0);
    driver.member.seek(&[(partition(0), 10)]).await.unwrap();
    driver.during(A_WHILE).await;
    assert_eq!(driver.count(0), 0, "a seek does not resume");
    driver.member.pause(&[partition(0)], false).await.unwrap();
    driver.until("all again", |driver| driver.count(0) >= 490).await;
    assert_eq!(driver.taken[&0], offsets(10, 500));
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_survives_the_rebalances_of_others_and_ends_with_the_assignment() {
    let cluster = Cluster::start(2);
    let mut first = cluster.join(KIP_848).await;
    first.owns(2).await;
    first.member.pause(&[partition(0), partition(1)], true).await.unwrap();
    cluster.produce(0, 50);
    cluster.produce(1, 50);
    let mut second = cluster.join(KIP_848).await;
    Driver::both(&mut first, &mut second, |a, b| (a.owned.len(), b.owned.len()) == (1, 1)).await;
    let kept = first.owned.first().unwrap().partition();
    first.during(A_WHILE).await;
    assert_eq!(first.count(kept), 0, "the partition that stayed is still paused");
    let moved = 1 - kept;
    second.until("the partition that moved", |driver| driver.count(moved) == 50).await;
    second.member.close().await.unwrap();
    // It is assigned again, and is no longer paused.
    first.until("the partition that is assigned again", |driver| driver.count(moved) == 50).await;
    assert_eq!(first.count(kept), 0);
    first.member.pause(&[partition(kept)], false).await.unwrap();
    first.until("resumed", |driver| driver.seen(kept).len() == 50).await;
    first.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_not_assigned_cannot_be_sought() {
    let cluster = Cluster::start(1);
    let mut driver = cluster.join(KIP_848).await;
    driver.owns(1).await;
    let error = error_chain(&driver.member.seek(&[(partition(7), 0)]).await.unwrap_err());
    assert!(error.contains("events/7") && error.contains("not assigned"), "{error}");
    // A rebalance may overtake a pause.
    driver.member.pause(&[partition(7), partition(0)], true).await.unwrap();
    cluster.produce(0, 10);
    driver.during(A_WHILE).await;
    assert_eq!(driver.count(0), 0, "the assigned one is paused");
    driver.member.close().await.unwrap();
}

/// librdkafka's fetcher has ended by then, and rejects a seek.
async fn an_out_of_range_partition_can_be_sought(settings: Settings) {
    let cluster = Cluster::start(3);
    (0..3).for_each(|number| cluster.produce(number, 100));
    let mut driver = cluster.join(settings).await;
    driver.until("all", |driver| driver.counts().values().sum::<usize>() == 300).await;
    driver.commit(1, 5000, None).await;
    driver.member.close().await.unwrap();
    let mut driver = cluster.join(settings).await;
    driver.until("a failure", |driver| !driver.failures.is_empty()).await;
    assert_eq!(driver.failures, [(1, PartitionFailure::OutOfRange { offset: 5000 })]);
    driver.until("the others", |driver| driver.count(0) == 100 && driver.count(2) == 100).await;
    driver.member.seek(&[(partition(1), 40)]).await.unwrap();
    driver.until("its remaining records", |driver| driver.count(1) == 60).await;
    assert_eq!(driver.taken[&1], offsets(40, 100));
    (0..3).for_each(|number| cluster.produce(number, 10));
    let done = |driver: &Driver| (0..3).all(|number| driver.seen(number).last() == Some(&109));
    driver.until("new records of all partitions", done).await;
    assert_eq!((driver.seen(0), driver.failures.len()), (offsets(0, 110), 1));
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_out_of_range_partition_can_be_sought_in_an_eager_group() {
    an_out_of_range_partition_can_be_sought(EAGER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_out_of_range_partition_can_be_sought_in_a_cooperative_group() {
    an_out_of_range_partition_can_be_sought(COOPERATIVE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_out_of_range_partition_can_be_sought_in_a_kip_848_group() {
    an_out_of_range_partition_can_be_sought(KIP_848).await;
}

/// These errors of librdkafka have no version, so one that waits in the queue outlives its
/// assignment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_out_of_range_error_of_an_earlier_assignment_does_not_affect_the_current_one() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 100);
    let mut first = cluster.join(KIP_848).await;
    first.until("all", |driver| driver.count(0) == 100).await;
    first.commit(0, 5000, None).await;
    first.member.close().await.unwrap();
    let mut driver = cluster.join(KIP_848).await;
    driver.polls = false;
    driver.owns(1).await;
    assert_eq!(driver.starts[0].offset, Some(5000));
    // The error arrives, and no task polls.
    tokio::time::sleep(A_WHILE).await;
    driver.commit(0, 30, None).await;
    assert_eq!(driver.move_away_and_back().await, Some(30));
    driver.polls = true;
    driver.until("all records from there", |driver| driver.seen(0).last() == Some(&99)).await;
    assert_eq!((driver.taken[&0].clone(), driver.failures.len()), (offsets(30, 100), 0));
    driver.member.close().await.unwrap();
}
