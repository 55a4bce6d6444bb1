//! The settings of the Kafka clients: of the consumer, and of the sink's producer.

use kmr_auth::with_token_provider;
use kmr_core::ClientConfig;

use super::file::{Kafka, Protocol, Source};
use super::value::{Secret, Settings, Text, Texts};

/// The client's settings: those of the keys, then `source.settings`, and the source of tokens that
/// these describe.
///
/// # Errors
/// A setting of the source of tokens is wrong.
pub(super) fn client_config(name: &str, source: &Source) -> anyhow::Result<ClientConfig> {
    let config = ClientConfig::new()
        .set("bootstrap.servers", joined(&source.brokers))
        .set("group.id", source.group.as_str())
        .set("client.id", format!("kmr-{name}"));
    let config = match source.protocol {
        Protocol::Eager => config.set("partition.assignment.strategy", "range"),
        Protocol::Cooperative => config.set("partition.assignment.strategy", "cooperative-sticky"),
        Protocol::Consumer => config.set("group.protocol", "consumer"),
    };
    let config = with_access(config, source.user.as_ref(), source.password.as_ref(), &source.settings);
    Ok(with_token_provider(config)?)
}

/// The settings of the sink's producer: those of the source, or of its own brokers.
///
/// # Errors
/// As of [`client_config`].
pub(super) fn producer_config(source: ClientConfig, kafka: &Kafka) -> anyhow::Result<ClientConfig> {
    let config = match &kafka.brokers {
        None => source,
        Some(brokers) => ClientConfig::new().set("bootstrap.servers", joined(brokers)),
    };
    let config = with_access(config, kafka.user.as_ref(), kafka.password.as_ref(), &kafka.settings);
    // The tokens of the source, unless the sink has settings of its own.
    let has_own = kafka.settings.iter().any(|(name, _)| name.contains("oauthbearer"));
    Ok(if kafka.brokers.is_some() || has_own { with_token_provider(config)? } else { config })
}

fn joined(brokers: &Texts) -> String {
    brokers.iter().collect::<Vec<_>>().join(",")
}

/// Sets user, password and settings. What comes from a file follows the file.
fn with_access(
    mut config: ClientConfig,
    user: Option<&Text>,
    password: Option<&Secret>,
    settings: &Settings,
) -> ClientConfig {
    if let Some(user) = user {
        config = match user.file() {
            Some(file) => config.set_from_file("sasl.username", file),
            None => config.set("sasl.username", user.as_str()),
        };
    }
    if let Some(password) = password {
        config = match password.file() {
            Some(file) => config.set_from_file("sasl.password", file),
            None => config.set("sasl.password", password.reveal()),
        };
    }
    settings.entries().fold(config, |config, (name, setting)| {
        match setting.file().filter(|_| rotates(name)) {
            Some(file) => config.set_from_file(name, file),
            None => config.set(name, setting.as_str()),
        }
    })
}

/// Whether the value can change while the client runs. The settings of a source of tokens are read
/// once.
fn rotates(name: &str) -> bool {
    ["sasl.username", "sasl.password"].contains(&name) || name.starts_with("ssl.")
}
