//! The interface of the test consumer (`src/bin/consumer`): the settings it receives and the events
//! it prints.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::process::Process;

/// Settings of one run of the test consumer. The process receives them as one argument, in JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// `bootstrap.servers`.
    pub broker: String,
    /// The topic.
    pub topic: String,
    /// Further topics.
    pub more_topics: Vec<String>,
    /// `group.id`.
    pub group: String,
    /// Further settings of the Kafka client.
    pub kafka: BTreeMap<String, String>,
    /// URL of ClickHouse.
    pub clickhouse: String,
    /// User and password of ClickHouse. Default: the server's default user.
    pub clickhouse_login: Option<(String, String)>,
    /// The database.
    pub database: String,
    /// The table.
    pub table: String,
    /// The row that the map stage makes of a record.
    pub row: RowKind,
    /// The sink's fault.
    pub sink: SinkKind,
    /// Whether the strategy has a `reduce_err`, which writes to standard error.
    pub dead_letters: bool,
    /// Rows in a batch.
    pub max_rows: usize,
    /// Bytes in a batch. Default: the sink's limit.
    pub max_bytes: Option<usize>,
    /// Age of a batch.
    pub max_age: Duration,
    /// Concurrent inserts.
    pub max_in_flight: usize,
    /// Time after which retries give up.
    pub give_up_after: Duration,
    /// Timeout for ClickHouse to become ready at the start.
    pub start_timeout: Duration,
    /// The consumer's memory budget.
    pub memory_budget: usize,
    /// The consumer's commit interval.
    pub commit_interval: Duration,
    /// Timeout for a broker to become reachable at the start.
    pub connect_timeout: Duration,
    /// Timeout of one delivery attempt. Default: the sink's.
    pub attempt_timeout: Option<Duration>,
    /// Settings of ClickHouse for its inserts.
    pub clickhouse_settings: BTreeMap<String, String>,
    /// Number of replicas that have to store a batch.
    pub insert_quorum: Option<u32>,
    /// Whether the consumer is in exactly-once mode.
    pub exactly_once: bool,
    /// Where the process aborts, with the effect of `kill -9`.
    pub abort: Option<AbortAt>,
    /// The offset, in any partition, of a record whose mapping fails.
    pub fails_at: Option<u64>,
    /// The consumer's drain timeout. Default: kmr's.
    pub drain_timeout: Option<Duration>,
}

/// Aborts the process at a step of one block or commit, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortAt {
    /// The step.
    pub step: Step,
    /// The number of the block.
    pub block: u32,
}

/// Steps of a block in exactly-once mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The rows are frozen, and the plan is not committed.
    BeforePlan,
    /// The plan is committed, and no row is sent.
    BeforeInsert,
    /// This long after the insert was sent, without an answer.
    DuringInsert(Duration),
    /// The first attempt has ended. Either the server has acknowledged the block, and its offset is
    /// not committed. Or the rejected rows are found, and their dead letters are not sent.
    BeforeCommit,
    /// The dead letters of the rejected rows are acknowledged, and the other rows are not sent.
    BeforeRest,
    /// The server has acknowledged the other rows, and the block's offset is not committed.
    AfterRest,
    /// An offset after the block is committed.
    AfterCommit,
}

/// The row that the map stage makes of a record. `Scene` has the columns for each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowKind {
    /// Partition, offset and timestamp of a JSON payload. Other payloads fail, and the payload
    /// `panic` panics.
    Ingest,
    /// Topic, partition, offset, the number in the JSON payload, the mapping process's id, and the
    /// time in milliseconds.
    Traced,
    /// Partition, offset and the whole payload, so that rows are as large as records.
    Payload,
    /// Sixteen rows per partition and batch, with the partition, the first offset, and the count
    /// and sum of the numbers in the JSON payloads.
    Folded,
}

/// The sink's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SinkKind {
    /// No fault: inserts into ClickHouse.
    ClickHouse,
    /// Waits before each insert.
    Slow(Duration),
    /// Holds every insert until SIGCONT.
    Stalled,
    /// Inserts, and fails every delivery with a retryable error, as if the response were lost.
    LosesResponses,
    /// Fails every delivery with a retryable error, without an insert.
    AlwaysFails,
}

impl Settings {
    /// kmr's defaults, except for a shorter `max_age`.
    pub fn new(broker: &str, topic: &str, group: &str) -> Self {
        Self {
            broker: broker.to_owned(),
            topic: topic.to_owned(),
            more_topics: Vec::new(),
            group: group.to_owned(),
            kafka: BTreeMap::new(),
            clickhouse: String::new(),
            clickhouse_login: None,
            database: String::new(),
            table: String::new(),
            row: RowKind::Ingest,
            sink: SinkKind::ClickHouse,
            dead_letters: true,
            max_rows: 32_768,
            max_bytes: None,
            max_age: Duration::from_millis(500),
            max_in_flight: 2,
            give_up_after: Duration::from_secs(300),
            start_timeout: Duration::from_secs(30),
            memory_budget: 64 << 20,
            commit_interval: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(30),
            attempt_timeout: None,
            clickhouse_settings: BTreeMap::new(),
            insert_quorum: None,
            exactly_once: false,
            abort: None,
            fails_at: None,
            drain_timeout: None,
        }
    }

    /// With one more setting of the Kafka client.
    #[must_use]
    pub fn kafka(mut self, name: &str, value: &str) -> Self {
        self.kafka.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Starts `program`, the test consumer, with these settings.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn(&self, program: impl Into<PathBuf>) -> Result<Process> {
        Process::spawn(self.command(program)?)
    }

    /// The command that [`Settings::spawn`] runs.
    ///
    /// # Errors
    ///
    /// When the settings have no JSON.
    pub fn command(&self, program: impl Into<PathBuf>) -> Result<Command> {
        let mut command = Command::new(program.into());
        // Makes jemalloc return freed pages at once, not after ten seconds, so that resident memory
        // is the memory in use.
        command.env("MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0");
        command.arg(serde_json::to_string(self).context("settings as JSON")?);
        Ok(command)
    }
}

/// A line of the test consumer's standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// The progress so far, several times a second.
    Progress {
        /// Milliseconds since its start.
        at: u64,
        /// Records mapped.
        records: u64,
        /// Rows that the sink has acknowledged.
        rows: u64,
        /// Bytes of the memory budget in use.
        bytes_held: u64,
        /// Rebalances so far. Each assign and each revoke counts.
        rebalances: u64,
    },
    /// It has stopped in order after a stop request.
    Ended {
        /// Records mapped.
        records: u64,
        /// Dead dead_letters.
        dead_letters: u64,
        /// Commit requests.
        commits: u64,
        /// Rebalances. Each assign and each revoke counts.
        rebalances: u64,
    },
    /// It has failed. Standard error has the text.
    Failed {
        /// The name of the variant of `kmr_core::Error`.
        error: String,
    },
}

impl Event {
    /// All events so far.
    pub fn all(process: &Process) -> Vec<Self> {
        process.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The last event so far.
    pub fn last(process: &Process) -> Option<Self> {
        process.stdout().lines().rev().find_map(|line| serde_json::from_str(line).ok())
    }
}
