//! Starting positions, and the metadata of committed offsets.

use std::time::Duration;

use rdkafka::bindings::rd_kafka_resp_err_t as Code;
use rdkafka::types::RDKafkaApiKey;
use tokio::time::sleep;

use crate::config::{ResetPolicy, StartAt};
use crate::error::Error;
use crate::member::{LogPoint, MemberEvent, PartitionFailure};

use super::kit::{Cluster, Driver, KIP_848, partition};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explicit_offsets_apply_without_a_commit_and_the_policy_to_all_other_partitions() {
    let cluster = Cluster::start(3);
    (0..3).for_each(|number| cluster.produce(number, 100));
    let mut options = cluster.options(KIP_848);
    let mut first = Driver::connect(&options).await;
    first.owns(3).await;
    first.commit(0, 60, Some("as committed")).await;
    first.member.close().await.unwrap();
    options.start_at = Some(StartAt::offsets([(partition(0), 10), (partition(1), 20)]));
    options.reset = ResetPolicy::Latest;
    let mut driver = Driver::connect(&options).await;
    driver.owns(3).await;
    let starts: Vec<_> =
        driver.starts.iter().map(|s| (s.partition.partition(), s.offset, s.chosen)).collect();
    assert_eq!(starts, [(0, Some(60), false), (1, Some(20), true), (2, Some(100), true)]);
    driver.until("all records", |driver| driver.count(0) == 40 && driver.count(1) == 80).await;
    assert_eq!((driver.taken[&0][0], driver.taken[&1][0], driver.count(2)), (60, 20, 0));
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explicit_offset_that_is_not_in_the_log_is_reported_with_the_bounds_of_the_log() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 100);
    let mut options = cluster.options(KIP_848);
    options.start_at = Some(StartAt::offsets([(partition(0), 101)]));
    let driver = Driver::connect(&options).await;
    let MemberEvent::Rebalance(rebalance) = driver.member.next_event().await else { panic!("no rebalance") };
    let error = driver.member.assign(&rebalance, Box::new(|_| ())).await.unwrap_err();
    assert!(
        matches!(&error, Error::OffsetOutOfRange { offset: Some(101), low: 0, high: 100, .. }),
        "{error}"
    );
    driver.member.close().await.unwrap();
}

/// The mock has no timestamps, so no record is late enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_after_the_last_record_is_the_end_and_is_chosen_once() {
    let cluster = Cluster::start(2);
    cluster.produce(0, 30);
    let mut options = cluster.options(KIP_848);
    options.start_at = Some(StartAt::Timestamp(i64::MAX));
    let mut driver = Driver::connect(&options).await;
    driver.owns(2).await;
    let starts: Vec<_> = driver.starts.iter().map(|start| (start.offset, start.chosen)).collect();
    assert_eq!(starts, [(Some(30), true), (Some(0), true)]);
    // The committer commits chosen offsets like this.
    driver.commit(0, 30, None).await;
    driver.commit(1, 0, None).await;
    driver.member.close().await.unwrap();
    cluster.produce(0, 5);
    let mut driver = Driver::connect(&options).await;
    driver.owns(2).await;
    assert!(driver.starts.iter().all(|start| !start.chosen));
    driver.until("the records produced meanwhile", |driver| driver.count(0) == 5).await;
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_returned_with_the_offset() {
    let cluster = Cluster::start(2);
    cluster.produce(0, 10);
    let long = "ü".repeat(1500);
    let mut driver = cluster.join(KIP_848).await;
    driver.owns(2).await;
    driver.commit(0, 4, Some(&long)).await;
    driver.commit(1, 0, None).await;
    driver.member.close().await.unwrap();
    let mut driver = cluster.join(KIP_848).await;
    driver.owns(2).await;
    let starts: Vec<_> = driver.starts.iter().map(|start| (start.offset, start.metadata.clone())).collect();
    assert!(starts == [(Some(4), Some(long.into())), (Some(0), None)], "{:?}", driver.starts);
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_offsets_are_returned_for_all_partitions_at_once() {
    let cluster = Cluster::start(3);
    cluster.produce(1, 7);
    let mut driver = cluster.join(KIP_848).await;
    driver.owns(3).await;
    let all: Vec<_> = (0..3).map(partition).collect();
    let ends = driver.member.offsets(&all, LogPoint::End).await.unwrap();
    assert_eq!(ends, [(partition(0), 0), (partition(1), 7), (partition(2), 0)].into());
    let lows = driver.member.offsets(&all, LogPoint::Low).await.unwrap();
    assert!(lows.len() == 3 && lows.values().all(|low| *low == 0), "{lows:?}");
    // The leader moves. librdkafka itself does not send the request again.
    cluster
        .mock
        .request_errors(RDKafkaApiKey::ListOffsets, &[Code::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR; 2]);
    assert_eq!(driver.member.offsets(&all, LogPoint::End).await.unwrap(), ends);
    assert_eq!(driver.member.log_bounds(&partition(1)).await, Some((0, 7)));
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_arrives_while_a_time_is_looked_up_is_not_skipped() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 30);
    let mut driver = cluster.join(KIP_848).await;
    driver.owns(1).await;
    // The mock handles a request at once, and delays the response.
    cluster.mock.broker_round_trip_time(1, Duration::from_secs(2)).unwrap();
    let member = driver.member.clone();
    let offsets =
        tokio::spawn(async move { member.offsets(&[partition(0)], LogPoint::Time(i64::MAX)).await });
    sleep(Duration::from_secs(1)).await;
    cluster.produce(0, 1);
    assert_eq!(offsets.await.unwrap().unwrap(), [(partition(0), 30)].into(), "the end before that record");
    cluster.mock.broker_round_trip_time(1, Duration::ZERO).unwrap();
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_whose_lowest_offset_is_not_returned_is_read_all_the_same() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 30);
    let mut driver = cluster.join(KIP_848).await;
    // librdkafka does not retry these errors. A leader that has just got the partition returns the
    // first one.
    let errors = [Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, Code::RD_KAFKA_RESP_ERR_UNKNOWN];
    cluster.mock.request_errors(RDKafkaApiKey::ListOffsets, &errors);
    driver.until("all records", |driver| driver.count(0) == 30).await;
    let unavailable =
        |failure: &(i32, PartitionFailure)| matches!(failure.1, PartitionFailure::Unavailable(_));
    assert!(!driver.failures.is_empty() && driver.failures.iter().all(unavailable), "{:?}", driver.failures);
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_latest_policy_does_not_skip_a_topic_that_is_added_later() {
    let cluster = Cluster::start(1);
    cluster.produce(0, 30);
    let settings = &[
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("session.timeout.ms", "6000"),
        ("topic.metadata.refresh.interval.ms", "500"),
    ];
    let mut options = cluster.options(settings);
    options.client.topics = vec!["^event.*".to_owned()];
    options.reset = ResetPolicy::Latest;
    let mut driver = Driver::connect(&options).await;
    driver.owns(1).await;
    assert_eq!(driver.starts[0].offset, Some(30), "the topic was there at the start");
    cluster.mock.create_topic("events.new", 1, 1).unwrap();
    cluster.produce_to("events.new", 0, 10);
    driver.until("records of the new topic", |driver| driver.count(0) == 10).await;
    // It is committed, or the next owner would start at the end.
    let start = driver.starts.iter().find(|start| start.partition.topic() == "events.new").unwrap();
    assert_eq!((start.offset, start.chosen), (Some(0), true));
    driver.member.close().await.unwrap();
}
