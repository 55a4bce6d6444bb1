//! Records are read again by offset, whichever member owns the partition, and no position moves.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::kit::{Cluster, KIP_848, partition};
use crate::member::{Connector, Reread};

fn offsets(found: &[Reread]) -> Vec<Option<i64>> {
    let offset = |found: &Reread| match found {
        Reread::Record(record) => Some(record.offset()),
        Reread::Gone(_) => None,
    };
    found.iter().map(offset).collect()
}

async fn read(
    connect: &crate::client::Connect,
    number: i32,
    offsets: &[i64],
    max_bytes: usize,
) -> Result<Vec<Reread>, crate::Error> {
    let partition = partition(number);
    let reading = connect.read_records(&partition, offsets, max_bytes);
    timeout(Duration::from_secs(30), reading).await.expect("a response within 30 s")
}

#[tokio::test]
async fn records_are_found_near_and_far_and_missing_ones_are_reported_as_gone() {
    let cluster = Cluster::start(2);
    cluster.produce(0, 3000);
    cluster.produce(1, 10);
    let connect = cluster.options(KIP_848);
    let wanted = [5, 6, 90, 2500, 2999];
    assert_eq!(offsets(&read(&connect, 0, &wanted, 1 << 20).await.unwrap()), wanted.map(Some));
    assert_eq!(offsets(&read(&connect, 1, &[0, 9], 1 << 20).await.unwrap()), [Some(0), Some(9)]);
    // The same client continues, and also reads backwards.
    let found = read(&connect, 0, &[2, 2998, 3000, 9999], 1 << 20).await.unwrap();
    assert_eq!(offsets(&found), [Some(2), Some(2998), None, None]);
    assert!(
        matches!(&found[3], Reread::Gone(why) if why.contains("9999") && why.contains("3000")),
        "{found:?}"
    );
    let found = read(&connect, 0, &[9999], 1 << 20).await.unwrap();
    assert!(matches!(&found[0], Reread::Gone(why) if why.contains("0..3000")), "{found:?}");
}

/// All reads of a batch share ten seconds. A broker that waits for more bytes, or for records after
/// the last one, would take them from the next partition.
#[tokio::test]
async fn records_of_many_quiet_partitions_are_read_without_a_wait_for_more() {
    const PARTITIONS: i32 = 80;
    let cluster = Cluster::start(PARTITIONS);
    (0..PARTITIONS).for_each(|number| cluster.produce(number, 1));
    let connect = cluster.options(KIP_848);
    assert_eq!(offsets(&read(&connect, 0, &[0], 1 << 20).await.unwrap()), [Some(0)]);
    let started = Instant::now();
    for number in 1..PARTITIONS {
        assert_eq!(offsets(&read(&connect, number, &[0], 1 << 20).await.unwrap()), [Some(0)], "{number}");
    }
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
}

#[tokio::test]
async fn no_more_is_read_than_requested() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 100);
    let connect = cluster.options(KIP_848);
    let all: Vec<i64> = (0..100).collect();
    // Each record has one byte.
    assert_eq!(read(&connect, 0, &all, 7).await.unwrap().len(), 7);
    assert_eq!(read(&connect, 0, &all, 0).await.unwrap().len(), 1, "at least one");
}

#[tokio::test]
async fn reading_does_not_affect_the_member_of_the_group() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 100);
    let options = cluster.options(KIP_848);
    let mut member = cluster.join(KIP_848).await;
    member.owns(1).await;
    member.until("all", |driver| driver.count(0) == 100).await;
    assert_eq!(offsets(&read(&options, 0, &[3, 50], 1 << 20).await.unwrap()), [Some(3), Some(50)]);
    cluster.produce(0, 10);
    member.until("the new records", |driver| driver.count(0) == 110).await;
    assert_eq!((member.count(0), member.rebalances), (110, 1));
}

#[tokio::test]
async fn an_unavailable_broker_is_an_error_or_a_timeout_and_the_next_reading_succeeds() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 10);
    let connect = cluster.options(KIP_848);
    assert_eq!(offsets(&read(&connect, 0, &[1], 1 << 20).await.unwrap()), [Some(1)]);
    cluster.mock.broker_down(-1).unwrap();
    let partition = partition(0);
    let reading = connect.read_records(&partition, &[2], 1 << 20);
    let response = timeout(Duration::from_secs(2), reading).await;
    assert!(response.is_err() || response.is_ok_and(|response| response.is_err()));
    cluster.mock.broker_up(-1).unwrap();
    assert_eq!(offsets(&read(&connect, 0, &[2], 1 << 20).await.unwrap()), [Some(2)]);
}
