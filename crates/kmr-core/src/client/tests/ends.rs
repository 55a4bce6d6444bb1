//! Ends of partitions.

use std::time::Duration;

use super::kit::{Cluster, Driver, KIP_848, partition};

async fn with_ends(cluster: &Cluster) -> Driver {
    let mut options = cluster.options(KIP_848);
    options.client.reports_ends = true;
    Driver::connect(&options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_is_reported_after_the_last_record_and_for_an_empty_partition() {
    let cluster = Cluster::start(2);
    cluster.produce(0, 300);
    let mut driver = with_ends(&cluster).await;
    driver
        .until("both ends", |driver| driver.ends.contains(&(0, 300)) && driver.ends.contains(&(1, 0)))
        .await;
    assert_eq!(driver.count(0), 300, "poll had returned all records by then");
    assert!(driver.failures.is_empty());
    cluster.produce(0, 10);
    cluster.produce(1, 10);
    driver
        .until("the new ends", |driver| driver.ends.contains(&(0, 310)) && driver.ends.contains(&(1, 10)))
        .await;
    assert_eq!((driver.seen(0), driver.seen(1)), ((0..310).collect(), (0..10).collect()));
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_end_is_reported_unless_configured() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 10);
    let mut driver = cluster.join(KIP_848).await;
    driver.until("all", |driver| driver.count(0) == 10).await;
    driver.during(Duration::from_millis(500)).await;
    assert!(driver.ends.is_empty());
    driver.member.close().await.unwrap();
}

/// librdkafka counts the end as a record. After a resume it would continue one offset too high.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_record_is_skipped_when_a_partition_is_paused_at_its_end() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 10);
    let mut driver = with_ends(&cluster).await;
    driver.until("the end", |driver| driver.ends.contains(&(0, 10))).await;
    driver.member.pause(&[partition(0)], true).await.unwrap();
    cluster.produce(0, 10);
    driver.member.pause(&[partition(0)], false).await.unwrap();
    driver.until("the next end", |driver| driver.ends.contains(&(0, 20))).await;
    assert_eq!(driver.seen(0), (0..20).collect::<Vec<_>>());
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_record_is_skipped_when_others_rebalance_at_the_end() {
    let cluster = Cluster::start(2);
    let mut first = with_ends(&cluster).await;
    let mut produced = [0i64; 2];
    for _ in 0..3 {
        first.owns(2).await;
        let ends = produced;
        first.until("both ends", |d| d.ends.contains(&(0, ends[0])) && d.ends.contains(&(1, ends[1]))).await;
        let mut second = with_ends(&cluster).await;
        // Records arrive while librdkafka has paused the partition that stays, or shortly before or
        // after.
        first.holds = true;
        second.holds = true;
        Driver::both(&mut first, &mut second, |first, _| !first.held.is_empty()).await;
        for number in 0..2 {
            cluster.produce(number, 5);
            produced[usize::try_from(number).unwrap()] += 5;
        }
        first.holds = false;
        second.holds = false;
        for driver in [&mut first, &mut second] {
            for rebalance in std::mem::take(&mut driver.held) {
                driver.answer(&rebalance).await;
            }
        }
        Driver::both(&mut first, &mut second, |a, b| (a.owned.len(), b.owned.len()) == (1, 1)).await;
        let kept = first.owned.first().unwrap().partition();
        let all: Vec<i64> = (0..produced[usize::try_from(kept).unwrap()]).collect();
        first
            .until("new records of the kept partition", |driver| driver.seen(kept).last() == all.last())
            .await;
        assert_eq!(first.seen(kept), all);
        second.member.close().await.unwrap();
        // The partition is read from the start again: nothing was committed.
        first.taken.clear();
        first.owns(2).await;
        first.member.seek(&[(partition(kept), 0)]).await.unwrap();
    }
    first.member.close().await.unwrap();
}
