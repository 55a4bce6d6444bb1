//! The broker's settings, as environment variables that the official and the local image both read.

use std::collections::BTreeMap;

use testcontainers::ImageExt as _;

use crate::engine::{Container, Image};
use crate::error::Result;

/// Largest message that the broker accepts, so that tests can use messages of several megabytes.
const LARGEST_MESSAGE_BYTES: u32 = 16 * 1024 * 1024;

/// Environment variables by name.
pub(crate) type Environment = BTreeMap<String, String>;

/// Starts a broker in the host's network. It listens on the loopback address itself, so it keeps
/// its address after a stop, and no proxy of the engine copies every byte.
pub(crate) async fn start(image: Image, environment: Environment) -> Result<Container> {
    Container::start(image, |request| {
        let request = request.with_network("host");
        environment.into_iter().fold(request, |request, (name, value)| request.with_env_var(name, value))
    })
    .await
}

/// The settings of a broker with one listener without authentication.
pub(crate) fn plaintext(port: u16, controller: u16) -> Environment {
    let mut environment = common(controller);
    environment.extend(own([
        ("LISTENERS", format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}")),
        ("ADVERTISED_LISTENERS", format!("PLAINTEXT://127.0.0.1:{port}")),
        ("LISTENER_SECURITY_PROTOCOL_MAP", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned()),
        ("INTER_BROKER_LISTENER_NAME", "PLAINTEXT".to_owned()),
    ]));
    environment
}

/// The environment variable of a broker's setting: `KAFKA_` and the name in capitals, with one
/// underscore for a dot, two for an underscore and three for a dash.
pub(crate) fn variable(setting: &str) -> String {
    let mut name = String::from("KAFKA_");
    for character in setting.chars() {
        match character {
            '.' => name.push('_'),
            '_' => name.push_str("__"),
            '-' => name.push_str("___"),
            other => name.extend(other.to_uppercase()),
        }
    }
    name
}

fn common(controller: u16) -> Environment {
    let mut settings: Environment = own([
        ("NODE_ID", "1".to_owned()),
        ("PROCESS_ROLES", "broker,controller".to_owned()),
        ("CONTROLLER_LISTENER_NAMES", "CONTROLLER".to_owned()),
        ("CONTROLLER_QUORUM_VOTERS", format!("1@127.0.0.1:{controller}")),
        ("LOG_DIRS", "/tmp/kafka-data".to_owned()),
        ("MESSAGE_MAX_BYTES", LARGEST_MESSAGE_BYTES.to_string()),
        ("REPLICA_FETCH_MAX_BYTES", LARGEST_MESSAGE_BYTES.to_string()),
        ("HEAP_OPTS", "-Xmx1g -Xms512m".to_owned()),
    ])
    .collect();
    settings.extend(own(FIXED.map(|(name, value)| (name, value.to_owned()))));
    settings
}

/// Settings of every broker.
const FIXED: [(&str, &str); 19] = [
    // A mistyped topic name must not create a topic.
    ("AUTO_CREATE_TOPICS_ENABLE", "false"),
    // One broker, so no replicas.
    ("OFFSETS_TOPIC_REPLICATION_FACTOR", "1"),
    ("TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1"),
    ("TRANSACTION_STATE_LOG_MIN_ISR", "1"),
    ("SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR", "1"),
    ("SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR", "1"),
    // Few tests run at once. The default of 50 partitions slows the first group and transaction.
    ("OFFSETS_TOPIC_NUM_PARTITIONS", "4"),
    ("TRANSACTION_STATE_LOG_NUM_PARTITIONS", "4"),
    // The first member starts at once, and short session timeouts are allowed.
    ("GROUP_INITIAL_REBALANCE_DELAY_MS", "0"),
    ("GROUP_MIN_SESSION_TIMEOUT_MS", "500"),
    ("GROUP_CONSUMER_MIN_SESSION_TIMEOUT_MS", "1000"),
    ("GROUP_CONSUMER_SESSION_TIMEOUT_MS", "6000"),
    ("GROUP_CONSUMER_MIN_HEARTBEAT_INTERVAL_MS", "100"),
    // Also librdkafka's timeout of a heartbeat. After a lost one a member can be stuck (see the
    // fault tests).
    ("GROUP_CONSUMER_HEARTBEAT_INTERVAL_MS", "2000"),
    // Records of any timestamp are kept.
    ("LOG_RETENTION_MS", "-1"),
    // Compaction starts within a second of becoming possible.
    ("LOG_CLEANER_BACKOFF_MS", "200"),
    ("LOG_INITIAL_TASK_DELAY_MS", "100"),
    // Open transactions of a killed producer end soon.
    ("TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS", "1000"),
    ("NUM_NETWORK_THREADS", "2"),
];

fn own<const N: usize>(settings: [(&str, String); N]) -> impl Iterator<Item = (String, String)> {
    settings.map(|(name, value)| (format!("KAFKA_{name}"), value)).into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_settings_become_variables() {
        assert_eq!(variable("log.retention.ms"), "KAFKA_LOG_RETENTION_MS");
        let jaas = "listener.name.clients.scram-sha-512.sasl.jaas.config";
        assert_eq!(variable(jaas), "KAFKA_LISTENER_NAME_CLIENTS_SCRAM___SHA___512_SASL_JAAS_CONFIG");
        assert_eq!(variable("a_b"), "KAFKA_A__B");
    }

    #[test]
    fn a_plain_broker_listens_on_the_loopback_address_alone() {
        let environment = plaintext(20_001, 20_002);
        assert_eq!(
            environment["KAFKA_LISTENERS"],
            "PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:20002"
        );
        assert_eq!(environment["KAFKA_CONTROLLER_QUORUM_VOTERS"], "1@127.0.0.1:20002");
    }
}
