//! The flags of `verify`.

use clap::Args;
use kmr_cli_support::connection::{ClickHouseArgs, KafkaArgs};
use kmr_sinks::kafka::DEFAULT_HEADER_PREFIX;

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
    /// Prefix of the dead letters' header names: `KafkaWriter`'s header prefix.
    #[arg(long, value_name = "PREFIX", default_value = DEFAULT_HEADER_PREFIX)]
    pub(crate) dead_letter_prefix: String,
    /// The table's column of the topic. Default: `topic` if the table has it; otherwise all rows
    /// count as this topic's.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) topic_column: Option<String>,
    /// The table's column of the partition, an integer. Default: `partition`.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) partition_column: Option<String>,
    /// The table's column of the offset, an integer.
    #[arg(long, value_name = "COLUMN", default_value = "offset")]
    pub(crate) offset_column: String,
    /// The rows are folded: the sum of this column has to equal the number of committed records,
    /// without dead letters. The table needs no offsets. If it has the column of the partition,
    /// each partition is compared.
    #[arg(long, value_name = "COLUMN", conflicts_with_all = ["offset_column", "list"])]
    pub(crate) sum: Option<String>,
    /// Read the table with FINAL: count rows as they are after ClickHouse's merges
    /// (ReplacingMergeTree).
    #[arg(long)]
    pub(crate) merged: bool,
    /// Number of missing records to allow, such as dead letters on standard error.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) allow_missing: u64,
    /// Offsets to compare at a time. Memory is a few bits for each. A table that is not sorted by
    /// partition and offset is read once for each such range.
    #[arg(long, value_name = "OFFSETS", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) offsets_at_a_time: u64,
    /// Runs of offsets to list for each kind and partition. Counts are always exact.
    #[arg(long, value_name = "RUNS", default_value_t = 10)]
    pub(crate) list: usize,
    /// Print JSON on standard output in place of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The partition's column, if the flags name none.
const PARTITION: &str = "partition";

impl VerifyArgs {
    /// The table's column of the partition.
    pub(crate) fn partition_column(&self) -> &str {
        self.partition_column.as_deref().unwrap_or(PARTITION)
    }
}
