//! Leaders at addresses that no client reaches: the start names them, and does not wait forever. A
//! consumer that runs names them, too, and reads the other partitions.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::mocking::MockCoordinator;

use super::kit::{Cluster, Driver, partition};
use super::unread::{Running, reaches, wait_until};
use crate::client::open::open;
use crate::config::ClientConfig;
use crate::error::{Error, error_chain};
use crate::member::{Connector, LogPoint, LogReach, SilentLeader};

/// A cluster of two brokers, the options of a client that knows only the first one, and the address
/// of the second.
fn two_brokers() -> (Cluster, crate::client::Connect, String) {
    let mut cluster = Cluster::with_brokers(2, 2);
    let servers = cluster.servers.clone();
    let (first, second) = servers.split_once(',').unwrap();
    cluster.servers = first.to_owned();
    let mut connect = cluster.options(&[]);
    connect.client.timeout = Duration::from_secs(3);
    (cluster, connect, second.to_owned())
}

#[tokio::test]
async fn leaders_that_no_client_reaches_end_the_start_with_their_address() {
    let (cluster, connect, second) = two_brokers();
    for partition in [0, 1] {
        cluster.mock.partition_leader("events", partition, Some(2)).unwrap();
    }
    // The metadata of this cluster leaves out a broker that is down. A broker that is up and silent
    // is as unreachable.
    cluster.mock.broker_round_trip_time(2, Duration::from_secs(60)).unwrap();
    let error = open(&connect.client).await.err().unwrap();
    let text = error_chain(&error);
    assert!(matches!(error, Error::LeadersUnreachable { .. }) && error.is_retryable(), "{text}");
    assert!(text.contains(&second) && text.contains("advertised.listeners"), "{text}");
    // Once the address works, so does the same start.
    cluster.mock.broker_round_trip_time(2, Duration::ZERO).unwrap();
    assert!(open(&connect.client).await.is_ok());
}

#[tokio::test]
async fn the_leaders_of_topics_that_a_pattern_matches_are_checked_too() {
    let (cluster, mut connect, second) = two_brokers();
    for partition in [0, 1] {
        cluster.mock.partition_leader("events", partition, Some(2)).unwrap();
    }
    cluster.mock.partition_leader("other", 0, Some(1)).unwrap();
    cluster.mock.broker_round_trip_time(2, Duration::from_secs(60)).unwrap();
    connect.client.topics = vec!["^ev".to_owned()];
    let text = error_chain(&open(&connect.client).await.err().unwrap());
    assert!(text.contains("no leader of topic \"^ev\"") && text.contains(&second), "{text}");
    // The leader of another topic that matches responds. And a pattern may match nothing.
    for pattern in ["^(events|other)$", "^none"] {
        connect.client.topics = vec![pattern.to_owned()];
        assert!(open(&connect.client).await.is_ok(), "{pattern}");
    }
    // The broker decides what the pattern matches.
    connect.client.topics = vec!["^ev".to_owned()];
    connect.client.config = connect.client.config.set("group.protocol", "consumer");
    assert!(open(&connect.client).await.is_ok());
}

#[tokio::test]
async fn a_coordinator_that_no_client_reaches_ends_the_start_with_its_address() {
    for protocol in ["classic", "consumer"] {
        let (cluster, mut connect, second) = two_brokers();
        one_leader_each(&cluster);
        cluster.mock.coordinator(MockCoordinator::Group("group".to_owned()), 2).unwrap();
        cluster.mock.broker_round_trip_time(2, Duration::from_secs(60)).unwrap();
        connect.client.config = connect.client.config.set("group.protocol", protocol);
        let error = connect.connect().await.err().unwrap();
        let text = error_chain(&error);
        assert!(matches!(error, Error::CoordinatorUnreachable { .. }) && error.is_retryable(), "{text}");
        for part in [&second, "group \"group\"", "advertised.listeners"] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        // A client without a group needs no coordinator.
        connect.client.without_group = true;
        connect.client.config = ClientConfig::new().set("bootstrap.servers", &cluster.servers);
        let connected = connect.connect().await.unwrap();
        connected.member.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_position_that_cannot_be_read_names_the_leader() {
    let (cluster, connect, second) = two_brokers();
    one_leader_each(&cluster);
    cluster.mock.broker_round_trip_time(2, Duration::from_secs(60)).unwrap();
    let driver = Driver::connect(&connect).await;
    let partitions = [partition(0), partition(1)];
    let text = error_chain(&driver.member.offsets(&partitions, LogPoint::End).await.err().unwrap());
    assert!(text.contains(&format!("no connection to {second} (broker 2)")), "{text}");
    assert!(driver.member.offsets(&partitions[..1], LogPoint::End).await.is_ok());
    driver.member.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_partitions_are_read_while_a_leader_does_not_respond() {
    let (cluster, mut connect, second) = two_brokers();
    one_leader_each(&cluster);
    (0..2).for_each(|number| cluster.produce(number, 20));
    cluster.mock.broker_round_trip_time(2, Duration::from_secs(60)).unwrap();
    connect.client.config = connect.client.config.set("group.protocol", "consumer");
    let running = Running::start(Arc::new(connect));
    wait_until("the other partition", || running.rows() == 20).await;
    wait_until("late", || running.health(1).late).await;
    let leader = running.health(1).unreachable_leader.unwrap();
    assert_eq!(leader.name, format!("{second} (broker 2)"));
    cluster.produce(0, 10);
    wait_until("new records", || running.rows() == 30).await;
    cluster.mock.broker_round_trip_time(2, Duration::ZERO).unwrap();
    wait_until("all", || running.rows() == 50).await;
    wait_until("healthy", || running.is_healthy()).await;
    assert_eq!(running.stop().await, 50, "no duplicates");
}

#[tokio::test]
async fn one_leader_that_answers_is_enough() {
    let (cluster, connect, _) = two_brokers();
    for (partition, leader) in [(0, 2), (1, 1)] {
        cluster.mock.partition_leader("events", partition, Some(leader)).unwrap();
    }
    cluster.mock.broker_round_trip_time(2, Duration::from_secs(60)).unwrap();
    assert!(open(&connect.client).await.is_ok());
}

/// Partition 0 is led by the first broker, and partition 1 by the second.
fn one_leader_each(cluster: &Cluster) {
    for (partition, leader) in [(0, 1), (1, 2)] {
        cluster.mock.partition_leader("events", partition, Some(leader)).unwrap();
    }
    // The group's coordinator is reachable.
    cluster.mock.coordinator(MockCoordinator::Group("group".to_owned()), 1).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_leader_is_named_with_its_address_and_hides_nothing_of_the_others() {
    let (cluster, mut connect, second) = two_brokers();
    one_leader_each(&cluster);
    connect.client.config = connect.client.config.set("group.protocol", "consumer");
    let mut driver = Driver::connect(&connect).await;
    driver.owns(2).await;
    let known = Ok(LogReach { end: 0, fetched: 0 });
    let silent = Err(SilentLeader::Broker { id: 2, address: second.into() });
    cluster.mock.broker_round_trip_time(2, Duration::from_secs(60)).unwrap();
    let found = reaches(&mut driver, &[(0, 0), (1, 0)]).await;
    assert_eq!(found, [(partition(0), known.clone()), (partition(1), silent)].into());
    // As after the death of a broker: the cluster names another leader, or none.
    cluster.mock.broker_down(2).unwrap();
    loop {
        let found = reaches(&mut driver, &[(0, 0), (1, 0)]).await;
        assert_eq!(found.get(&partition(0)), Some(&known));
        if found.get(&partition(1)) == Some(&Err(SilentLeader::Unknown)) {
            break;
        }
    }
    cluster.mock.broker_round_trip_time(2, Duration::ZERO).unwrap();
    cluster.mock.broker_up(2).unwrap();
    while reaches(&mut driver, &[(1, 0)]).await.get(&partition(1)) != Some(&known) {}
    driver.member.close().await.unwrap();
}
