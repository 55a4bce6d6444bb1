//! The settings of the Kafka clients: of the consumer, and of the sink's producer.

use kmr_core::ClientConfig;

use super::file::{Kafka, Protocol, Source};
use super::value::{Secret, Settings, Text, Texts};

/// The client's settings: those of the keys, then `source.settings`.
pub(super) fn client_config(name: &str, source: &Source) -> ClientConfig {
    let config = ClientConfig::new()
        .set("bootstrap.servers", joined(&source.brokers))
        .set("group.id", source.group.as_str())
        .set("client.id", format!("kmr-{name}"));
    let config = match source.protocol {
        Protocol::Eager => config.set("partition.assignment.strategy", "range"),
        Protocol::Cooperative => config.set("partition.assignment.strategy", "cooperative-sticky"),
        Protocol::Consumer => config.set("group.protocol", "consumer"),
    };
    with_access(config, source.user.as_ref(), source.password.as_ref(), &source.settings)
}

/// The settings of the sink's producer: those of the source, or of its own brokers.
pub(super) fn producer_config(source: ClientConfig, kafka: &Kafka) -> ClientConfig {
    let config = match &kafka.brokers {
        None => source,
        Some(brokers) => ClientConfig::new().set("bootstrap.servers", joined(brokers)),
    };
    with_access(config, kafka.user.as_ref(), kafka.password.as_ref(), &kafka.settings)
}

fn joined(brokers: &Texts) -> String {
    brokers.iter().collect::<Vec<_>>().join(",")
}

/// Sets user, password and settings.
fn with_access(
    mut config: ClientConfig,
    user: Option<&Text>,
    password: Option<&Secret>,
    settings: &Settings,
) -> ClientConfig {
    if let Some(user) = user {
        config = config.set("sasl.username", user.as_str());
    }
    if let Some(password) = password {
        config = config.set("sasl.password", password.reveal());
    }
    settings.iter().fold(config, |config, (name, value)| config.set(name, value))
}
