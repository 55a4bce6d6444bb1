//! A client that knows no broker finds the cluster again.

use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use super::kit::Cluster;
use crate::client::bootstrap::Bootstrap;

#[test]
fn a_client_that_knows_no_broker_finds_the_cluster_by_servers_that_are_added() {
    let cluster = Cluster::start(1);
    let mut config = rdkafka::ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Emerg);
    let consumer: BaseConsumer = config.create().unwrap();
    let bootstrap = Bootstrap::new(&cluster.servers);
    let finds = |limit| consumer.fetch_metadata(None, limit).is_ok_and(|found| found.brokers().len() == 1);
    bootstrap.add_if_due(consumer.client());
    assert!(!finds(Duration::from_millis(300)), "nothing was due");
    bootstrap.reported(RDKafkaErrorCode::AllBrokersDown);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !finds(Duration::from_millis(300)) {
        assert!(Instant::now() < deadline, "the servers were not added");
        bootstrap.add_if_due(consumer.client());
    }
}
