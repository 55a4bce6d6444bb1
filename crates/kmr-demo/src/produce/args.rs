//! The flags of `produce`.

use clap::Args;
use kmr_cli_support::connection::KafkaArgs;
use kmr_cli_support::units;

#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    /// Number of messages to produce.
    #[arg(long, env = "KMR_COUNT", default_value_t = 1_000_000)]
    pub(crate) count: u64,
    /// Messages a second. Default: no limit.
    #[arg(long, env = "KMR_RATE", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// Size of a message's JSON; messages are never smaller than their fields.
    #[arg(long, env = "KMR_SIZE", value_name = "SIZE", default_value = "200", value_parser = units::bytes)]
    pub(crate) size: usize,
    /// Number of partitions, if the topic does not exist and is created.
    #[arg(long, env = "KMR_PARTITIONS", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) partitions: i32,
    /// Ratio of malformed messages, as in 0.0001 or 1/10000.
    #[arg(long, env = "KMR_MALFORMED_RATIO", value_name = "RATIO", default_value = "0", value_parser = units::ratio)]
    pub(crate) malformed_ratio: f64,
}
