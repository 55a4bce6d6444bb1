//! The flags of the embedded demo.

use clap::Args;
use kmr_cli_support::units;

#[derive(Debug, Args)]
pub(crate) struct EmbeddedArgs {
    /// Number of messages to produce.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) messages: u64,
    /// Number of the topic's partitions.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=256))]
    pub(crate) partitions: i32,
    /// Ratio of malformed messages, as in 0.0001 or 1/10000.
    #[arg(long, value_name = "RATIO", default_value = "1/10000", value_parser = units::ratio)]
    pub(crate) malformed_ratio: f64,
    /// Serve the status page at this address while the demo runs, as in 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) status: Option<String>,
}
