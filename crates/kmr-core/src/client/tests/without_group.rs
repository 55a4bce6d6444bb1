//! Members without a group.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::kit::{COOPERATIVE, Cluster, Driver, KIP_848, Settings, partition};
use crate::client::{Connect, OpenOptions};
use crate::config::{ClientConfig, ResetPolicy, StartAt};
use crate::member::{Change, Rebalance, RebalanceProtocol};

fn options(cluster: &Cluster, settings: Settings) -> Connect {
    let config = ClientConfig::new().set("bootstrap.servers", &cluster.servers);
    let config = settings.iter().fold(config, |config, (name, value)| config.set(*name, *value));
    let connect = cluster.options(&[]);
    let client = OpenOptions { config, without_group: true, ..connect.client };
    Connect { client, ..connect }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_reads_everything_and_commits_nothing() {
    let cluster = Cluster::start(3);
    (0..3).for_each(|number| cluster.produce(number, 100));
    let mut drivers = Vec::new();
    for settings in [&[], KIP_848, COOPERATIVE] {
        drivers.push(Driver::connect(&options(&cluster, settings)).await);
    }
    for driver in &mut drivers {
        driver.until("all", |driver| driver.counts().values().sum::<usize>() == 300).await;
        assert!(driver.starts.iter().all(|start| start.chosen && start.offset.is_none()));
        driver.commit(0, 50, None).await;
        driver.during(Duration::from_millis(200)).await;
        assert_eq!((driver.rebalances, driver.failures.len()), (1, 0));
    }
    let asking: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &cluster.servers)
        .set("group.id", "kmr-without-group")
        .create()
        .unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition("events", 0);
    let committed = asking.committed_offsets(list, Duration::from_secs(10)).unwrap();
    assert_eq!(committed.elements()[0].offset(), rdkafka::Offset::Invalid);
    drop((committed, asking));
    for driver in drivers {
        driver.member.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_starts_at_the_chosen_offsets_and_can_be_paused_and_sought() {
    let cluster = Cluster::start(2);
    (0..2).for_each(|number| cluster.produce(number, 100));
    let mut options = options(&cluster, &[]);
    options.start_at = Some(StartAt::offsets([(partition(0), 90)]));
    options.reset = ResetPolicy::Latest;
    options.client.reports_ends = true;
    let mut driver = Driver::connect(&options).await;
    driver.until("the ends", |d| d.ends.contains(&(0, 100)) && d.ends.contains(&(1, 100))).await;
    assert_eq!((driver.count(0), driver.count(1)), (10, 0));
    driver.member.pause(&[partition(0)], true).await.unwrap();
    driver.member.seek(&[(partition(0), 0), (partition(1), 95)]).await.unwrap();
    driver.until("the records after the seek", |driver| driver.count(1) == 5).await;
    assert_eq!(driver.count(0), 10);
    driver.member.pause(&[partition(0)], false).await.unwrap();
    driver.until("all", |driver| driver.seen(0).len() == 100).await;
    driver.member.close().await.unwrap();
}

/// The consumer's next client continues where the last one stopped, whatever the policy for
/// partitions without a commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_client_continues_where_the_last_one_stopped() {
    let cluster = Cluster::start(2);
    (0..2).for_each(|number| cluster.produce(number, 100));
    let mut options = options(&cluster, &[]);
    options.reset = ResetPolicy::Latest;
    let mut driver = Driver::connect(&options).await;
    driver.owns(2).await;
    assert!(driver.starts.iter().all(|start| start.chosen && start.offset == Some(100)));
    // Partition 1 commits nothing.
    driver.commit(0, 40, None).await;
    driver.member.close().await.unwrap();
    (0..2).for_each(|number| cluster.produce(number, 10));
    let mut driver = Driver::connect(&options).await;
    driver.owns(2).await;
    let starts: Vec<_> = driver.starts.iter().map(|start| (start.offset, start.chosen)).collect();
    assert_eq!(starts, [(Some(40), false), (Some(100), false)]);
    driver.until("the uncommitted records", |driver| (driver.count(0), driver.count(1)) == (70, 10)).await;
    // The offset of a lost partition is forgotten, because a new partition of that name has another
    // log.
    let (change, protocol) = (Change::Lose, RebalanceProtocol::Cooperative);
    driver.answer(&Rebalance { id: 8, protocol, change, partitions: vec![partition(0)] }).await;
    let change = Change::Assign;
    driver.answer(&Rebalance { id: 9, protocol, change, partitions: vec![partition(0)] }).await;
    assert_eq!((driver.starts[0].offset, driver.starts[0].chosen), (Some(110), true));
    driver.member.close().await.unwrap();
}
