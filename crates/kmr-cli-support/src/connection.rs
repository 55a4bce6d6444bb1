//! Flags that locate Kafka and ClickHouse.

use std::ops::Deref;

use anyhow::{Context, ensure};
use clap::Args;

use crate::units::{self, Settings};

/// The variable of `--set`.
pub(crate) const SETTINGS: &str = "KMR_KAFKA_SETTINGS";

/// Kafka's address and the client's settings.
#[derive(Debug, Args)]
pub struct BrokerArgs {
    /// Bootstrap brokers, separated by commas. [User and password: KMR_KAFKA_USER,
    /// KMR_KAFKA_PASSWORD]
    #[arg(
        long,
        alias = "brokers",
        env = "KMR_BROKER",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9092"
    )]
    pub broker: String,
    /// A setting of the Kafka client, by librdkafka's name. Repeat it, or separate several with ;
    /// (`\;` is a ; of the value)
    #[arg(long = "set", env = SETTINGS, hide_env_values = true, value_name = "NAME=VALUE",
          value_parser = units::SettingsParser)]
    pub settings: Vec<Settings>,
}

/// Kafka's address, the client's settings and the topic. Dereferences to the first two.
#[derive(Debug, Args)]
pub struct KafkaArgs {
    /// Kafka's address and the client's settings.
    #[command(flatten)]
    pub brokers: BrokerArgs,
    /// The topic.
    #[arg(long, env = "KMR_TOPIC", default_value = "ingest-performance-metrics")]
    pub topic: String,
}

impl Deref for KafkaArgs {
    type Target = BrokerArgs;

    fn deref(&self) -> &BrokerArgs {
        &self.brokers
    }
}

impl BrokerArgs {
    /// Whether the settings come from the environment. Arguments replace those of the environment.
    pub(crate) fn is_from_environment(&self) -> bool {
        let settings = environment(SETTINGS).and_then(|text| units::settings(&text).ok());
        settings.is_some_and(|settings| self.settings == [settings])
    }

    /// The settings of all `--set`, in their order.
    pub fn settings(&self) -> Vec<(String, String)> {
        self.settings.iter().flat_map(|settings| settings.0.clone()).collect()
    }
}

/// ClickHouse's address and the table.
#[derive(Clone, Debug, Args)]
pub struct ClickHouseArgs {
    /// ClickHouse's HTTP address. [User and password: KMR_CLICKHOUSE_USER, KMR_CLICKHOUSE_PASSWORD]
    #[arg(long, env = "KMR_CLICKHOUSE", value_name = "HOST:PORT", default_value = "127.0.0.1:8123")]
    pub clickhouse: String,
    /// The database.
    #[arg(long, env = "KMR_DATABASE", default_value = "default")]
    pub database: String,
    /// The table.
    #[arg(long, env = "KMR_TABLE", default_value = "kmr_consumer_ingest")]
    pub table: String,
}

impl ClickHouseArgs {
    /// Host and port of the address. The ports of `http` and `https` are implied.
    ///
    /// # Errors
    ///
    /// An address that has no host, or no port that is a number.
    pub fn host_and_port(&self) -> anyhow::Result<(String, u16)> {
        let (scheme, rest) = self.clickhouse.split_once("://").unwrap_or(("http", &self.clickhouse));
        let authority = rest.split(['/', '?']).next().unwrap_or(rest);
        let implied = if scheme == "https" { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            // The colon belongs to an IPv6 address without a port.
            Some((_, after)) if after.contains(']') => (authority, implied),
            Some((host, port)) => (host, port.parse().context("the port of --clickhouse is not a number")?),
            None => (authority, implied),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        ensure!(!host.is_empty(), "--clickhouse names no host");
        Ok((host.to_owned(), port))
    }
}

/// A variable's value, if it is set and not empty.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        kafka: KafkaArgs,
    }

    #[test]
    fn addresses_are_split_into_host_and_port() {
        let split = |address: &str| {
            let (clickhouse, database, table) = (address.to_owned(), String::new(), String::new());
            ClickHouseArgs { clickhouse, database, table }.host_and_port().ok()
        };
        let expected = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(split("db:8123"), expected("db", 8123));
        assert_eq!(split("http://[::1]:8123/ch"), expected("::1", 8123));
        assert_eq!(split("https://[::1]"), expected("::1", 443));
        assert_eq!(split("https://db"), expected("db", 443));
        assert_eq!((split("db:x"), split(":8123")), (None, None));
    }

    #[test]
    fn settings_may_be_repeated() {
        let flags =
            Flags::try_parse_from(["kmr", "--set", "client.id=x", "--set", "fetch.min.bytes=1"]).unwrap();
        let expected = [("client.id".to_owned(), "x".to_owned()), ("fetch.min.bytes".into(), "1".into())];
        assert_eq!(flags.kafka.settings(), expected);
        let flags = Flags::try_parse_from(["kmr", "--set", "client.id=x;fetch.min.bytes=1"]).unwrap();
        assert_eq!(flags.kafka.settings(), expected);
    }

    #[test]
    fn the_error_of_a_wrong_setting_does_not_repeat_it() {
        let error = Flags::try_parse_from(["kmr", "--set", "sasl.password secret"]).unwrap_err().to_string();
        assert!(error.contains("--set") && error.contains("name=value"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
