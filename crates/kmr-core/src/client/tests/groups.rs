//! Requests about groups of other consumers. The mock cluster describes no group and lists no
//! committed offsets, so the integration tests of `kmr lag` cover what real brokers return.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::mocking::MockCluster;

use crate::client::{describe_group, group_offsets};

fn consumer(servers: &str) -> BaseConsumer {
    ClientConfig::new().set("bootstrap.servers", servers).set("group.id", "any").create().unwrap()
}

#[test]
fn a_broker_that_describes_no_group_is_named() {
    let mock = MockCluster::new(1).unwrap();
    let consumer = consumer(&mock.bootstrap_servers());
    let timeout = Duration::from_secs(30);
    let error = describe_group(consumer.client(), "readers", timeout).unwrap_err();
    assert_eq!(error.code, RDKafkaErrorCode::UnsupportedFeature, "{error}");
    assert_eq!(group_offsets(consumer.client(), "readers", timeout), Ok(Vec::new()));
    let error = describe_group(consumer.client(), "zero\0byte", timeout).unwrap_err();
    assert_eq!(error.code, RDKafkaErrorCode::InvalidGroupId, "{error}");
}

#[test]
fn a_request_without_a_response_ends_in_time() {
    let consumer = consumer("127.0.0.1:9");
    let started = Instant::now();
    let timeout = Duration::from_millis(300);
    assert!(describe_group(consumer.client(), "readers", timeout).is_err());
    assert!(group_offsets(consumer.client(), "readers", timeout).is_err());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}
