//! What the test consumer (`src/bin/consumer`) is told: the agreement between a test and the process it starts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::process::Process;

/// Everything about a run of the test consumer. It goes to the process as one argument, in JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// `bootstrap.servers`.
    pub broker: String,
    /// The topic.
    pub topic: String,
    /// Topics beside it.
    pub more_topics: Vec<String>,
    /// `group.id`.
    pub group: String,
    /// More settings of the Kafka client.
    pub kafka: BTreeMap<String, String>,
    /// ClickHouse's address.
    pub clickhouse: String,
    /// User and password there; the server's default user without them.
    pub clickhouse_login: Option<(String, String)>,
    /// The database.
    pub database: String,
    /// The table.
    pub table: String,
    /// What a record becomes.
    pub row: RowKind,
    /// What the sink does before it inserts.
    pub sink: SinkKind,
    /// Whether there is a `reduce_err` (to standard error).
    pub dead_letters: bool,
    /// Rows in a batch.
    pub max_rows: usize,
    /// Bytes in a batch, where it is not the sink's own limit.
    pub max_bytes: Option<usize>,
    /// Age of a batch.
    pub max_age: Duration,
    /// Inserts under way at once.
    pub max_in_flight: usize,
    /// When retries give up.
    pub give_up_after: Duration,
    /// How long ClickHouse is waited for at the start.
    pub start_timeout: Duration,
    /// The consumer's byte budget.
    pub memory_budget: usize,
    /// The consumer's commit interval.
    pub commit_interval: Duration,
    /// How long a broker is tried at the start.
    pub connect_timeout: Duration,
    /// Time of one delivery attempt, where it is not the sink's own.
    pub attempt_timeout: Option<Duration>,
    /// Settings of ClickHouse for its inserts.
    pub clickhouse_settings: BTreeMap<String, String>,
    /// Replicas that have to have a batch.
    pub insert_quorum: Option<u32>,
    /// Whether it delivers exactly once.
    pub exactly_once: bool,
    /// Where the process aborts, as `kill -9` would end it.
    pub dies: Option<Dies>,
    /// The offset, in any partition, of a record that cannot be mapped.
    pub fails_at: Option<u64>,
    /// The consumer's drain deadline, where it is not kmr's own.
    pub drain_timeout: Option<Duration>,
}

/// The end of a process: at a step of the block or commit of that number, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dies {
    /// Where.
    pub at: Step,
    /// In which block.
    pub block: u32,
}

/// Steps of a block in exactly-once mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Its rows are frozen, its plan is not committed.
    BeforePlan,
    /// Its plan is committed, nothing is sent.
    BeforeInsert,
    /// It has been sent for so long, and the answer is not there.
    DuringInsert(Duration),
    /// The first attempt is answered: the server has acknowledged it, its offset is not committed; or it has refused rows of it, which
    /// are found, and their dead letters are not sent.
    BeforeCommit,
    /// The dead letters of its refused rows are acknowledged, the rest of it is not sent.
    BeforeRest,
    /// The server has acknowledged the rest of it, its offset is not committed.
    AfterRest,
    /// An offset has been committed that is behind it.
    AfterCommit,
}

/// What the map stage makes of a record. The columns are those of the same name in `Scene`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowKind {
    /// Partition, offset and timestamp of a JSON payload; what is not JSON fails, and the payload `panic` panics.
    Ingest,
    /// Topic, partition, offset, the number in the JSON payload, who mapped it (a process id), and when, in milliseconds.
    Traced,
    /// Partition, offset and the whole payload, so that rows are as large as records.
    Payload,
}

/// What the sink does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SinkKind {
    /// Inserts.
    ClickHouse,
    /// Waits that long before each insert: a slow sink.
    Slow(Duration),
    /// Holds every insert until SIGCONT.
    Stalled,
    /// Inserts, and never hears that it did: every delivery fails with an error that could pass.
    LosesAnswers,
    /// Fails every delivery with an error that could pass, and never does.
    FailsForEver,
}

impl Settings {
    /// Settings with kmr's own defaults, but for a `max_age` that suits tests.
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
            dies: None,
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
        let mut command = Command::new(program.into());
        // jemalloc gives freed pages back at once, not after ten seconds: the memory seen is the memory held.
        command.env("MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0");
        command.arg(serde_json::to_string(self).context("settings as JSON")?);
        Process::spawn(command)
    }
}

/// A line of the test consumer's standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// What it has done so far, several times a second.
    Progress {
        /// Milliseconds since its start.
        at: u64,
        /// Records mapped.
        records: u64,
        /// Rows that the sink has acknowledged.
        rows: u64,
        /// Bytes of the budget that are in use.
        bytes_held: u64,
        /// Rebalances so far, each assign and each revoke for itself.
        rebalances: u64,
    },
    /// It was told to stop, and did in order.
    Ended {
        /// Records mapped.
        records: u64,
        /// Dead letters.
        dead_letters: u64,
        /// Commit requests.
        commits: u64,
        /// Rebalances, each assign and each revoke for itself.
        rebalances: u64,
    },
    /// It failed; the text is on standard error.
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
