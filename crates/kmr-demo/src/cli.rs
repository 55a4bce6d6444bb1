//! The command line: flags, their environment variables and defaults.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::units;

/// kmr at work: from Kafka through map and reduce into a sink.
///
/// Without a subcommand it needs no server: it starts a Kafka cluster inside the process, produces messages while a
/// pipeline consumes them, and ends with a table of what arrived. Exit code 1 if anything is missing or double.
#[derive(Debug, Parser)]
#[command(name = "kmr-demo", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) embedded: EmbeddedArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Consume a topic of a real Kafka into ClickHouse, until SIGINT or SIGTERM.
    Run(Box<RunArgs>),
    /// Produce JSON messages to a topic of a real Kafka.
    Produce(ProduceArgs),
    /// Create the table that `run` writes to, if it is not there.
    CreateTable(CreateTableArgs),
    /// Prove that what a group has committed of a topic is in the table. Exit code 1 unless it is.
    ///
    /// Reads the topic (every record that a read_committed consumer gets, so that gaps of compaction and transactions are
    /// told from losses), the dead-letter topics, and the columns of partition and offset of the table, and compares them
    /// offset by offset, up to the committed ones. It joins no group, and writes and commits nothing; it may run beside the consumer.
    ///
    /// missing:  a record that is neither in the table nor a dead letter
    /// double:   more than one row for an offset, or a row and a dead letter
    /// no record: offsets without a record: compacted, aborted, or transaction markers
    ///
    /// What retention has taken is named as not checkable. Tables that merge doubles away later: --merged.
    #[command(verbatim_doc_comment)]
    Verify(Box<VerifyArgs>),
    /// Look at everything that `run` needs, before it runs. Exit code 1 when something is in the way.
    ///
    /// Takes the flags of `run`: settings, brokers, versions, permissions, the topic, the group and its offsets; ClickHouse, the
    /// table's columns, engine and deduplication windows (down the views behind it), and how many parts it has. Ends
    /// with the delivery guarantee that will really be obtained. It joins no group, and writes nothing.
    Doctor(Box<DoctorArgs>),
    /// What an operator does to a group's offsets.
    #[command(subcommand)]
    Offsets(OffsetsArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum OffsetsArgs {
    /// Commit explicit offsets for a stopped group, and start a new epoch of exactly-once delivery there.
    ///
    /// A consumer in exactly-once mode stops at an offset that kmr did not commit, because nobody knows which rows are in the
    /// table by then. Find that out (`kmr-demo verify`), and say it with this command. What is read again in a new epoch is
    /// inserted again. Partitions that are not named stay as they are.
    Reset(Box<ResetArgs>),
}

/// The demo without servers.
#[derive(Debug, Args)]
pub(crate) struct EmbeddedArgs {
    /// Messages to produce.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) messages: u64,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=256))]
    pub(crate) partitions: i32,
    /// Share of malformed messages, as in 0.0001 or 1/10000.
    #[arg(long, value_name = "SHARE", default_value = "1/10000", value_parser = units::share)]
    pub(crate) malformed_share: f64,
}

/// Where Kafka is, and what to read from it or write to it.
#[derive(Debug, Args)]
pub(crate) struct KafkaArgs {
    /// Brokers to start from: host:port, separated by commas. [User and password: KMR_KAFKA_USER, KMR_KAFKA_PASSWORD]
    #[arg(long, env = "KMR_BROKER", value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub(crate) broker: String,
    /// The topic.
    #[arg(long, env = "KMR_TOPIC", default_value = "ingest-performance-metrics")]
    pub(crate) topic: String,
    /// A setting of the Kafka client, by librdkafka's name; may be repeated, or hold several with ; between them.
    #[arg(long = "set", env = "KMR_KAFKA_SETTINGS", hide_env_values = true, value_name = "NAME=VALUE",
          value_parser = units::setting, value_delimiter = ';')]
    pub(crate) settings: Vec<(String, String)>,
}

/// Where ClickHouse is, and which table.
#[derive(Debug, Args)]
pub(crate) struct ClickHouseArgs {
    /// ClickHouse's HTTP address. [User and password: KMR_CLICKHOUSE_USER, KMR_CLICKHOUSE_PASSWORD]
    #[arg(long, env = "KMR_CLICKHOUSE", value_name = "HOST:PORT", default_value = "127.0.0.1:8123")]
    pub(crate) clickhouse: String,
    /// The database.
    #[arg(long, env = "KMR_DATABASE", default_value = "default")]
    pub(crate) database: String,
    /// The table.
    #[arg(long, env = "KMR_TABLE", default_value = "kmr_consumer_ingest")]
    pub(crate) table: String,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    /// The consumer group.
    #[arg(long, env = "KMR_GROUP", default_value = "test-map-reduce-consumer")]
    pub(crate) group: String,
    /// How the group shares partitions out; `consumer` is KIP-848.
    #[arg(long, env = "KMR_PROTOCOL", value_enum, default_value_t = Protocol::Cooperative)]
    pub(crate) protocol: Protocol,
    #[command(flatten)]
    pub(crate) clickhouse: ClickHouseArgs,
    /// What a record has to be: JSON (what is not goes to the error stage), or anything.
    #[arg(long, env = "KMR_MODE", value_enum, default_value_t = Mode::Json)]
    pub(crate) mode: Mode,
    /// Where rows go. `drop` discards them, to measure the rest; `stalled` never acknowledges, to see back-pressure.
    #[arg(long, env = "KMR_SINK", value_enum, default_value_t = Sink::Clickhouse)]
    pub(crate) sink: Sink,
    /// Where records go that failed: JSON lines on standard error, nowhere, or nowhere and never acknowledged.
    #[arg(long, env = "KMR_ERRORS", value_enum, default_value_t = Errors::Stderr)]
    pub(crate) errors: Errors,
    /// The topic that records go to that failed, in place of --errors, with headers that say why. It has to exist.
    #[arg(long, env = "KMR_DEAD_LETTER_TOPIC", value_name = "TOPIC")]
    pub(crate) dead_letter_topic: Option<String>,
    /// Deliver each row exactly once, by plans in the group's commit metadata. The table needs a deduplication window.
    #[arg(long, env = "KMR_EXACTLY_ONCE")]
    pub(crate) exactly_once: bool,
    #[command(flatten)]
    pub(crate) tuning: Tuning,
    /// End in order when no record came for this long, counted from the first assignment.
    #[arg(long, env = "KMR_UNTIL_IDLE", value_name = "DURATION", value_parser = units::duration)]
    pub(crate) until_idle: Option<Duration>,
    /// What is printed at the end: a line on standard error, or JSON on standard output too.
    #[arg(long, env = "KMR_SUMMARY", value_enum, default_value_t = SummaryFormat::Text)]
    pub(crate) summary: SummaryFormat,
}

/// Sizes and times of the consumer.
#[derive(Debug, Args)]
pub(crate) struct Tuning {
    /// Rows in a batch.
    #[arg(long, env = "KMR_MAX_RECORDS", value_name = "ROWS", default_value_t = 32_768)]
    pub(crate) max_rows: usize,
    /// Age of a batch since its first row.
    #[arg(long, env = "KMR_MAX_AGE", value_name = "DURATION", default_value = "4s", value_parser = units::duration)]
    pub(crate) max_age: Duration,
    /// Memory from fetch to acknowledgement.
    #[arg(long, env = "KMR_BYTE_BUDGET", value_name = "SIZE", default_value = "64MiB", value_parser = units::bytes)]
    pub(crate) memory_budget: usize,
    /// How often offsets are committed.
    #[arg(long, env = "KMR_COMMIT_INTERVAL", value_name = "DURATION", default_value = "1s",
          value_parser = units::duration)]
    pub(crate) commit_interval: Duration,
    /// How long partitions are drained when they are handed back, and at the end.
    #[arg(long, env = "KMR_DRAIN_DEADLINE", value_name = "DURATION", default_value = "180s",
          value_parser = units::duration)]
    pub(crate) drain_timeout: Duration,
    /// How long one insert may take.
    #[arg(long, env = "KMR_ATTEMPT_TIMEOUT", value_name = "DURATION", default_value = "20s",
          value_parser = units::duration)]
    pub(crate) attempt_timeout: Duration,
    /// How long an unreachable broker or ClickHouse is tried at the start.
    #[arg(long, env = "KMR_CONNECT_TIMEOUT", value_name = "DURATION", default_value = "30s",
          value_parser = units::duration)]
    pub(crate) connect_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    Eager,
    Cooperative,
    Consumer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Json,
    Raw,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SummaryFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    /// Messages to produce.
    #[arg(long, env = "KMR_COUNT", default_value_t = 1_000_000)]
    pub(crate) count: u64,
    /// Messages a second; as fast as it goes without it.
    #[arg(long, env = "KMR_RATE", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// Size of a message's JSON, at least what its fields need.
    #[arg(long, env = "KMR_SIZE", value_name = "SIZE", default_value = "200", value_parser = units::bytes)]
    pub(crate) size: usize,
    /// Partitions that the topic gets if it has to be created.
    #[arg(long, env = "KMR_PARTITIONS", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) partitions: i32,
    /// Share of malformed messages, as in 0.0001 or 1/10000.
    #[arg(long, env = "KMR_MALFORMED", value_name = "SHARE", default_value = "0", value_parser = units::share)]
    pub(crate) malformed: f64,
}

#[derive(Debug, Args)]
pub(crate) struct CreateTableArgs {
    #[command(flatten)]
    pub(crate) clickhouse: ClickHouseArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    /// The consumer group.
    #[arg(long, env = "KMR_GROUP", default_value = "test-map-reduce-consumer")]
    pub(crate) group: String,
    #[command(flatten)]
    pub(crate) clickhouse: ClickHouseArgs,
    /// A topic of dead letters with kmr's headers; may be repeated.
    #[arg(
        long = "dead-letter-topic",
        env = "KMR_DEAD_LETTER_TOPIC",
        value_name = "TOPIC",
        value_delimiter = ','
    )]
    pub(crate) dead_letter_topics: Vec<String>,
    /// What the names of the dead letters' headers start with: `KafkaWriter`'s header prefix.
    #[arg(long, value_name = "PREFIX", default_value = crate::verify::DEFAULT_PREFIX)]
    pub(crate) dead_letter_prefix: String,
    /// The table's column of the topic. Default: `topic`, if there is one; else all rows count as this topic's.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) topic_column: Option<String>,
    /// The table's column of the partition, an integer.
    #[arg(long, value_name = "COLUMN", default_value = "partition")]
    pub(crate) partition_column: String,
    /// The table's column of the offset, an integer.
    #[arg(long, value_name = "COLUMN", default_value = "offset")]
    pub(crate) offset_column: String,
    /// Read the table with FINAL: count rows as they will be when ClickHouse has merged (ReplacingMergeTree).
    #[arg(long)]
    pub(crate) merged: bool,
    /// Missing records that are accounted for elsewhere, such as dead letters on standard error.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) allow_missing: u64,
    /// Offsets that are compared at a time. Memory is a few bits for each; a table that is not sorted by partition and
    /// offset is read once for each window.
    #[arg(long, value_name = "OFFSETS", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) window: u64,
    /// Runs of offsets that are named of each kind and partition; counts are exact whatever it is.
    #[arg(long, value_name = "RUNS", default_value_t = 10)]
    pub(crate) list: usize,
    /// JSON on standard output in place of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// JSON on standard output in place of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,
    /// The consumer group. All of its consumers have to be stopped.
    #[arg(long, env = "KMR_GROUP", default_value = "test-map-reduce-consumer")]
    pub(crate) group: String,
    /// Where to: `earliest`, `latest`, `committed` (where it is, with a new epoch), or offsets as in 0=1500,3=20.
    #[arg(long, value_name = "WHERE", value_parser = reset_to)]
    pub(crate) to: ResetTo,
    /// Show what would be committed, and commit nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Where `offsets reset` goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ResetTo {
    Earliest,
    Latest,
    Committed,
    Offsets(BTreeMap<i32, i64>),
}

fn reset_to(text: &str) -> Result<ResetTo, String> {
    let wrong =
        || format!("{text:?} is no place; write earliest, latest, committed, or offsets as in 0=1500,3=20");
    let one = |part: &str| {
        let (partition, offset) = part.split_once('=')?;
        Some((partition.trim().parse().ok()?, offset.trim().parse().ok()?))
    };
    match text {
        "earliest" => Ok(ResetTo::Earliest),
        "latest" => Ok(ResetTo::Latest),
        "committed" => Ok(ResetTo::Committed),
        _ => text.split(',').map(one).collect::<Option<_>>().map(ResetTo::Offsets).ok_or_else(wrong),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run_args(args: &[&str]) -> Result<RunArgs, clap::Error> {
        let cli = Cli::try_parse_from(["kmr-demo", "run"].iter().chain(args))?;
        match cli.command {
            Some(Command::Run(args)) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
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
    fn settings_may_be_repeated() {
        let args = run_args(&["--set", "client.id=x", "--set", "fetch.min.bytes=1"]).unwrap();
        let expected = [("client.id".to_owned(), "x".to_owned()), ("fetch.min.bytes".into(), "1".into())];
        assert_eq!(args.kafka.settings, expected);
    }

    #[test]
    fn wrong_values_name_the_flag() {
        for (flag, value) in [("--set", "no-equals"), ("--max-age", "soon"), ("--memory-budget", "much")] {
            let error = run_args(&[flag, value]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(flag), "{error}");
        }
    }

    #[test]
    fn offsets_are_named_by_partition() {
        assert_eq!(reset_to("0=15, 3=20"), Ok(ResetTo::Offsets([(0, 15), (3, 20)].into())));
        assert_eq!(reset_to("latest"), Ok(ResetTo::Latest));
        for wrong in ["", "0", "0=x", "0=1,,", "newest"] {
            assert!(reset_to(wrong).is_err_and(|text| text.contains("earliest")), "{wrong}");
        }
    }

    #[test]
    fn the_embedded_demo_takes_no_subcommand() {
        let cli = Cli::try_parse_from(["kmr-demo", "--messages", "10", "--malformed-share", "1/5"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!((cli.embedded.messages, cli.embedded.malformed_share), (10, 0.2));
        assert!(Cli::try_parse_from(["kmr-demo", "--messages", "10", "run"]).is_err());
    }
}
