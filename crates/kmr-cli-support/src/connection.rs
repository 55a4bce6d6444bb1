//! Flags that locate Kafka and ClickHouse.

use clap::Args;

use crate::units::{self, Settings};

/// Kafka's address, the topic and the client's settings.
#[derive(Debug, Args)]
pub struct KafkaArgs {
    /// Bootstrap brokers, separated by commas. [User and password: KMR_KAFKA_USER,
    /// KMR_KAFKA_PASSWORD]
    #[arg(long, env = "KMR_BROKER", value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub broker: String,
    /// The topic.
    #[arg(long, env = "KMR_TOPIC", default_value = "ingest-performance-metrics")]
    pub topic: String,
    /// A setting of the Kafka client, by librdkafka's name. Repeat it, or separate several with ;
    /// (`\;` is a ; of the value)
    #[arg(long = "set", env = "KMR_KAFKA_SETTINGS", hide_env_values = true, value_name = "NAME=VALUE",
          value_parser = units::settings)]
    pub settings: Vec<Settings>,
}

impl KafkaArgs {
    /// The settings of all `--set`, in their order.
    pub fn settings(&self) -> Vec<(String, String)> {
        self.settings.iter().flat_map(|settings| settings.0.clone()).collect()
    }
}

/// ClickHouse's address and the table.
#[derive(Debug, Args)]
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
    fn settings_may_be_repeated() {
        let flags =
            Flags::try_parse_from(["kmr", "--set", "client.id=x", "--set", "fetch.min.bytes=1"]).unwrap();
        let expected = [("client.id".to_owned(), "x".to_owned()), ("fetch.min.bytes".into(), "1".into())];
        assert_eq!(flags.kafka.settings(), expected);
        let flags = Flags::try_parse_from(["kmr", "--set", "client.id=x;fetch.min.bytes=1"]).unwrap();
        assert_eq!(flags.kafka.settings(), expected);
    }
}
