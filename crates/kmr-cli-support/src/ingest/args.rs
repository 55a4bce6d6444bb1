//! The flags of the demonstration's consumer, their environment variables and defaults.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::connection::{ClickHouseArgs, KafkaArgs};
use crate::units;

/// The flags of `kmr-demo run`, which `kmr doctor` and `kmr check` accept too.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Kafka's address and the topic.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// The consumer group.
    #[arg(long, env = "KMR_GROUP", default_value = "test-map-reduce-consumer")]
    pub group: String,
    /// The group's rebalance protocol; `consumer` is KIP-848.
    #[arg(long, env = "KMR_PROTOCOL", value_enum, default_value_t = Protocol::Cooperative)]
    pub protocol: Protocol,
    /// ClickHouse's address and the table.
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,
    /// Which payloads become rows: `json` (all others are dead letters), or any payload.
    #[arg(long, env = "KMR_MODE", value_enum, default_value_t = Mode::Json)]
    pub(crate) mode: Mode,
    /// What becomes of records without a payload, the tombstones of a compacted topic: `fail` makes
    /// them dead letters in the mode `json` and rows in the mode `raw`; `skip` commits them
    /// without.
    #[arg(long, env = "KMR_TOMBSTONES", value_enum, default_value_t = Tombstones::Fail)]
    pub(crate) tombstones: Tombstones,
    /// Destination of rows. `drop` discards them, to measure the rest; `stalled` never
    /// acknowledges, to show back-pressure.
    #[arg(long, env = "KMR_SINK", value_enum, default_value_t = Sink::Clickhouse)]
    pub(crate) sink: Sink,
    /// Destination of dead letters: JSON lines on standard error, discarded, or never acknowledged.
    #[arg(long, env = "KMR_ERRORS", value_enum, default_value_t = Errors::Stderr)]
    pub(crate) errors: Errors,
    /// Topic for dead letters, in place of --errors. It has to exist. Headers name the cause.
    #[arg(long, env = "KMR_DEAD_LETTER_TOPIC", value_name = "TOPIC")]
    pub dead_letter_topic: Option<String>,
    /// Deliver each row exactly once, by plans in the group's commit metadata. The table needs a
    /// deduplication window.
    #[arg(long, env = "KMR_EXACTLY_ONCE")]
    pub(crate) exactly_once: bool,
    /// Sizes and times.
    #[command(flatten)]
    pub tuning: Tuning,
    /// Stop when all partitions are read to their end and no record has come for this long. Ends
    /// with an error if a partition's leader has not responded for 10 min.
    #[arg(long, env = "KMR_UNTIL_IDLE", value_name = "DURATION", value_parser = units::duration)]
    pub until_idle: Option<Duration>,
    /// Serve the status page, metrics and health probes at this address, as in 127.0.0.1:9464.
    /// Default: no server.
    #[arg(long, env = "KMR_STATUS", value_name = "ADDRESS")]
    pub status: Option<String>,
    /// File with the token that the actions of the status server require: pause, resume, drain.
    /// Default: no actions.
    #[arg(long, env = "KMR_STATUS_TOKEN_FILE", value_name = "FILE", requires = "status")]
    pub status_token_file: Option<PathBuf>,
    /// Format of the summary at the end: a line on standard error, or JSON on standard output too.
    #[arg(long, env = "KMR_SUMMARY", value_enum, default_value_t = SummaryFormat::Text)]
    pub summary: SummaryFormat,
}

/// Sizes and times of the consumer.
#[derive(Debug, Args)]
pub struct Tuning {
    /// Maximum rows of a batch.
    #[arg(long, env = "KMR_MAX_ROWS", value_name = "ROWS", default_value_t = 32_768)]
    pub(crate) max_rows: usize,
    /// Maximum age of a batch, counted from its first row.
    #[arg(long, env = "KMR_MAX_AGE", value_name = "DURATION", default_value = "4s", value_parser = units::duration)]
    pub max_age: Duration,
    /// Memory budget of records and rows, from fetch to acknowledgement.
    #[arg(long, env = "KMR_MEMORY_BUDGET", value_name = "SIZE", default_value = "64MiB", value_parser = units::bytes)]
    pub(crate) memory_budget: usize,
    /// Interval between commits of offsets.
    #[arg(long, env = "KMR_COMMIT_INTERVAL", value_name = "DURATION", default_value = "1s",
          value_parser = units::duration)]
    pub(crate) commit_interval: Duration,
    /// Maximum time to drain partitions when they are revoked, and at shutdown.
    #[arg(long, env = "KMR_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "180s",
          value_parser = units::duration)]
    pub(crate) drain_timeout: Duration,
    /// Timeout of one insert.
    #[arg(long, env = "KMR_ATTEMPT_TIMEOUT", value_name = "DURATION", default_value = "20s",
          value_parser = units::duration)]
    pub(crate) attempt_timeout: Duration,
    /// Maximum time to keep trying to reach the broker and ClickHouse at start-up.
    #[arg(long, env = "KMR_CONNECT_TIMEOUT", value_name = "DURATION", default_value = "30s",
          value_parser = units::duration)]
    pub(crate) connect_timeout: Duration,
}

/// The rebalance protocol of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Classic, with the `range` assignor.
    Eager,
    /// Classic, with the `cooperative-sticky` assignor.
    Cooperative,
    /// KIP-848: the broker assigns.
    Consumer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Json,
    Raw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tombstones {
    Fail,
    Skip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sink {
    Clickhouse,
    Drop,
    Stalled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Errors {
    Stderr,
    Drop,
    Stalled,
}

/// The format of the summary of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SummaryFormat {
    /// A line on standard error.
    Text,
    /// That line, and JSON on standard output.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        run: RunArgs,
    }

    fn run_args(args: &[&str]) -> Result<RunArgs, clap::Error> {
        Flags::try_parse_from(["kmr-demo"].iter().chain(args)).map(|flags| flags.run)
    }

    #[test]
    fn run_has_the_documented_defaults() {
        let args = run_args(&[]).unwrap();
        assert_eq!(args.kafka.broker, "127.0.0.1:9092");
        assert_eq!(args.kafka.topic, "ingest-performance-metrics");
        assert_eq!(args.group, "test-map-reduce-consumer");
        assert_eq!(args.clickhouse.clickhouse, "127.0.0.1:8123");
        assert_eq!(args.clickhouse.table, "kmr_consumer_ingest");
        assert_eq!((args.tuning.max_rows, args.tuning.max_age), (32_768, Duration::from_secs(4)));
    }

    #[test]
    fn wrong_values_name_the_flag() {
        for (flag, value) in [("--set", "no-equals"), ("--max-age", "soon"), ("--memory-budget", "much")] {
            let error = run_args(&[flag, value]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(flag), "{error}");
        }
    }
}
