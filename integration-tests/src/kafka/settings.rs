//! The broker's settings, as environment variables that the official and the local image both read.

use anyhow::Result;
use testcontainers::ImageExt as _;

use crate::engine::{Container, Image};

/// Largest message that the broker accepts. The tests use messages of 5 MB.
const LARGEST_MESSAGE_BYTES: u32 = 16 * 1024 * 1024;

pub(crate) type Environment = Vec<(String, String)>;

/// Starts a broker in the host's network. It listens on the loopback address itself, so it keeps
/// its address after a stop, and no proxy of the engine copies every byte.
pub(crate) async fn start(image: Image, environment: Environment) -> Result<Container> {
    Container::start(image, |request| {
        let request = request.with_network("host");
        environment.into_iter().fold(request, |request, (name, value)| request.with_env_var(name, value))
    })
    .await
}

/// One listener without authentication.
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

/// A listener for the test itself, and one whose advertised address is that of a proxy, or of
/// nothing.
pub(crate) fn proxied(port: u16, behind: u16, proxy: u16, controller: u16) -> Environment {
    let mut environment = common(controller);
    let own_listener = format!("PLAINTEXT://127.0.0.1:{port}");
    environment.extend(own([
        (
            "LISTENERS",
            format!("{own_listener},PROXIED://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{controller}"),
        ),
        ("ADVERTISED_LISTENERS", format!("{own_listener},PROXIED://127.0.0.1:{proxy}")),
        (
            "LISTENER_SECURITY_PROTOCOL_MAP",
            "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
        ),
        ("INTER_BROKER_LISTENER_NAME", "PLAINTEXT".to_owned()),
    ]));
    environment
}

/// A listener for the test itself, and others. `settings`: names as in Kafka's properties.
pub(crate) fn with_listeners(
    port: u16,
    controller: u16,
    listeners: &[(&str, &str)],
    ports: &[u16],
    settings: &[(&str, String)],
) -> Environment {
    let mut environment = plaintext(port, controller);
    let added = listeners.iter().zip(ports);
    for ((name, protocol), port) in added {
        for (setting, value) in &mut environment {
            let more = match setting.as_str() {
                "KAFKA_LISTENERS" | "KAFKA_ADVERTISED_LISTENERS" => format!(",{name}://127.0.0.1:{port}"),
                "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP" => format!(",{name}:{protocol}"),
                _ => continue,
            };
            value.push_str(&more);
        }
    }
    // Three underscores stand for a dash, two for an underscore, one for a point.
    let variable =
        |name: &str| format!("KAFKA_{}", name.replace('_', "__").replace('-', "___").replace('.', "_"));
    environment.extend(settings.iter().map(|(name, value)| (variable(name).to_uppercase(), value.clone())));
    environment
}

/// A listener with SASL/SCRAM-SHA-512 for clients, and one without authentication for
/// administration. Clients of the latter (`User:ANONYMOUS`) are super users. All others need an
/// ACL.
pub(crate) fn secured(clients: u16, internal: u16, controller: u16, admin: &str) -> Environment {
    let mut environment = common(controller);
    let listeners = format!("CLIENTS://127.0.0.1:{clients},INTERNAL://127.0.0.1:{internal}");
    environment.extend(own([
        ("LISTENERS", format!("{listeners},CONTROLLER://127.0.0.1:{controller}")),
        ("ADVERTISED_LISTENERS", listeners),
        (
            "LISTENER_SECURITY_PROTOCOL_MAP",
            "CLIENTS:SASL_PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
        ),
        ("INTER_BROKER_LISTENER_NAME", "INTERNAL".to_owned()),
        ("SASL_ENABLED_MECHANISMS", "SCRAM-SHA-512".to_owned()),
        // Three underscores stand for a dash, two for an underscore.
        (
            "LISTENER_NAME_CLIENTS_SCRAM___SHA___512_SASL_JAAS_CONFIG",
            "org.apache.kafka.common.security.scram.ScramLoginModule required;".to_owned(),
        ),
        ("AUTHORIZER_CLASS_NAME", "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned()),
        ("SUPER_USERS", format!("User:ANONYMOUS;User:{admin}")),
    ]));
    environment
}

fn common(controller: u16) -> Environment {
    let mut settings = own([
        ("NODE_ID", "1".to_owned()),
        ("PROCESS_ROLES", "broker,controller".to_owned()),
        ("CONTROLLER_LISTENER_NAMES", "CONTROLLER".to_owned()),
        ("CONTROLLER_QUORUM_VOTERS", format!("1@127.0.0.1:{controller}")),
        ("LOG_DIRS", "/tmp/kafka-data".to_owned()),
        ("MESSAGE_MAX_BYTES", LARGEST_MESSAGE_BYTES.to_string()),
        ("REPLICA_FETCH_MAX_BYTES", LARGEST_MESSAGE_BYTES.to_string()),
        ("HEAP_OPTS", "-Xmx1g -Xms512m".to_owned()),
    ]);
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

fn own<const N: usize>(settings: [(&str, String); N]) -> Environment {
    settings.into_iter().map(|(name, value)| (format!("KAFKA_{name}"), value)).collect()
}
