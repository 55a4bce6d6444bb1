//! Leaders at addresses that no client reaches: the start names them, and does not wait forever.

use std::time::Duration;

use rdkafka::mocking::MockCluster;

use super::kit::Cluster;
use crate::client::open::open;
use crate::error::{Error, error_chain};

/// A cluster of two brokers, the options of a client that knows only the first one, and the address
/// of the second.
fn two_brokers() -> (Cluster, crate::client::Connect, String) {
    let mut cluster = Cluster::start(2);
    cluster.mock = MockCluster::new(2).unwrap();
    cluster.mock.create_topic("events", 2, 1).unwrap();
    let servers = cluster.mock.bootstrap_servers();
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
async fn one_leader_that_answers_is_enough() {
    let (cluster, connect, _) = two_brokers();
    for (partition, leader) in [(0, 2), (1, 1)] {
        cluster.mock.partition_leader("events", partition, Some(leader)).unwrap();
    }
    cluster.mock.broker_round_trip_time(2, Duration::from_secs(60)).unwrap();
    assert!(open(&connect.client).await.is_ok());
}
