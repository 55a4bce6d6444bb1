//! The facts that the checks read.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use kmr_cli_support::ingest::Protocol;
use kmr_core::ConfigWarning;
use kmr_sinks::clickhouse::EngineClass;

/// How many facts are gathered and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// `check`: the facts that decide whether the consumer starts.
    StartUp,
    /// `doctor`: all facts.
    Full,
}

/// All facts.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) settings: SettingsFacts,
    pub(super) kafka: KafkaFacts,
    /// Nothing is known, if the consumer writes to no table.
    pub(super) clickhouse: ClickHouseFacts,
    /// The topic that the consumer writes to, and the number of its partitions.
    pub(super) sink_topic: Option<(String, Fact<usize>)>,
    /// The addresses of the Schema Registry, and why one cannot be used.
    pub(super) registry: Vec<(String, Fact<()>)>,
    pub(super) writer: Writer,
}

/// The client's settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingsFacts {
    /// Why the consumer rejects them.
    pub(crate) rejected: Option<String>,
    pub(crate) notes: Vec<ConfigWarning>,
}

/// A fact, or why it is unknown.
pub(super) type Fact<T> = Result<T, String>;

/// Whether the user has a permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Allowed,
    Denied,
    Unknown(String),
}

/// The cluster, the topic and the group.
#[derive(Clone, Debug)]
pub(super) struct KafkaFacts {
    pub(super) address: String,
    pub(super) topic: String,
    pub(super) group: String,
    pub(super) protocol: Protocol,
    /// `host:port` of every broker, by id.
    pub(super) brokers: Fact<BTreeMap<i32, String>>,
    /// A bootstrap server has named the brokers, and none of them responds.
    pub(super) all_silent: bool,
    /// Lowest and highest version of each request that the broker supports.
    pub(super) apis: BTreeMap<String, (i16, i16)>,
    pub(super) partitions: Fact<Vec<PartitionFacts>>,
    /// Whether the coordinator of the group responds.
    pub(super) coordinator: Result<(), NoCoordinator>,
    pub(super) may_read: Access,
    pub(super) may_commit: Access,
    /// `None`: no classic group of that name.
    pub(super) group_state: Fact<Option<GroupFacts>>,
    /// Whether the committed offsets could be read.
    pub(super) committed: Fact<()>,
    /// `None`: no topic for dead letters is set.
    pub(super) dead_letters: Option<DeadLetterFacts>,
}

/// The topic for dead letters, beside the source.
#[derive(Clone, Debug)]
pub(super) struct DeadLetterFacts {
    pub(super) topic: String,
    /// Number of its partitions.
    pub(super) partitions: Fact<usize>,
    /// Its settings, and those of the source, by name.
    pub(super) settings: Fact<(TopicSettings, TopicSettings)>,
}

/// A topic's settings, by name.
pub(super) type TopicSettings = BTreeMap<String, String>;

/// One partition of the topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionFacts {
    pub(super) id: i32,
    /// The id of its leader. `None`: it has none.
    pub(super) leader: Option<i32>,
    pub(super) replicas: usize,
    pub(super) in_sync: usize,
    /// Lowest offset, and the one after the last readable one (the last stable offset).
    pub(super) log: Option<(i64, i64)>,
    /// Why `log` is unknown. `None` also for a partition without a leader.
    pub(super) no_log: Option<NoLog>,
    /// The offset after the last record, readable or in an open transaction.
    pub(super) end: Option<i64>,
    pub(super) committed: Option<i64>,
}

/// Why the bounds of a log are unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoLog {
    /// The leader does not respond at the address that it advertises.
    NoResponse,
    /// The leader responded with an error.
    Rejected(String),
}

/// Why the group's coordinator is no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoCoordinator {
    /// No broker has responded, so nothing is known.
    Unknown(String),
    /// The user may not describe the group.
    NotAllowed,
    /// It does not respond.
    NoResponse {
        /// `host:port`, as the coordinator advertises it. `None`: the brokers name none.
        address: Option<String>,
        reason: String,
    },
}

impl fmt::Display for NoCoordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoCoordinator::Unknown(reason) => f.write_str(reason),
            NoCoordinator::NotAllowed => f.write_str("not allowed to describe the group"),
            NoCoordinator::NoResponse { address: Some(address), reason } => {
                write!(f, "the coordinator at {address} does not respond: {reason}")
            }
            NoCoordinator::NoResponse { address: None, reason } => {
                write!(f, "the brokers name no coordinator: {reason}")
            }
        }
    }
}

/// A classic group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupFacts {
    pub(super) state: String,
    /// The assignor that the members agreed on.
    pub(super) assignor: String,
    pub(super) members: usize,
}

/// The server and the table.
#[derive(Clone, Debug)]
pub(super) struct ClickHouseFacts {
    pub(super) address: String,
    /// Database and table.
    pub(super) table: String,
    pub(super) version: Fact<String>,
    /// The table, and all tables downstream of its views. Empty: the table does not exist.
    pub(super) tables: Fact<Vec<TableFacts>>,
    /// Whether the columns accept the demonstration's row type.
    pub(super) row: Fact<()>,
    pub(super) may_insert: Access,
    /// The settings of the user's profile that [`PROFILE`] names.
    pub(super) profile: Fact<BTreeMap<String, String>>,
    /// Why the consumer's writer would not start.
    pub(super) start: Fact<()>,
    /// Each address of the server's name, and whether it accepts a connection.
    pub(super) addresses: Fact<Vec<(IpAddr, Fact<()>)>>,
}

/// Settings that inserts do not pin, and that change what a stored batch means.
pub(super) const PROFILE: [&str; 4] = [
    "deduplicate_insert",
    "ignore_materialized_views_with_dropped_target_table",
    "insert_deduplicate",
    "materialized_views_ignore_errors",
];

impl ClickHouseFacts {
    /// The facts before the server was queried, which are unknown for this reason.
    pub(super) fn unknown(address: String, table: String, reason: &str) -> Self {
        let unknown = || reason.to_owned();
        Self {
            address,
            table,
            version: Err(unknown()),
            tables: Err(unknown()),
            row: Ok(()),
            may_insert: Access::Unknown(unknown()),
            profile: Err(unknown()),
            start: Err(unknown()),
            addresses: Err(unknown()),
        }
    }

    /// Whether the consumer's own table has rows, as far as its parts show.
    pub(super) fn has_rows(&self) -> bool {
        let tables = self.tables.as_ref().map_or(&[][..], |tables| tables);
        tables.first().is_some_and(|table| table.parts > 0)
    }

    /// The setting that disables all deduplication windows.
    pub(super) fn disables_windows(&self) -> Option<String> {
        let profile = self.profile.as_ref().ok()?;
        [("insert_deduplicate", "0"), ("deduplicate_insert", "disable")]
            .into_iter()
            .find(|(name, value)| profile.get(*name).is_some_and(|found| found == value))
            .map(|(name, value)| format!("{name} is {value}"))
    }
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TableFacts {
    pub(super) name: String,
    /// The view that writes to it; `None` for the consumer's own table.
    pub(super) view: Option<String>,
    /// Empty: the table was not found.
    pub(super) engine: String,
    /// `None`: the table was not found.
    pub(super) class: Option<EngineClass>,
    /// Whether the table syncs each insert to the disk (`fsync_after_insert`).
    pub(super) syncs: bool,
    /// Files of a Distributed table that wait for their shard.
    pub(super) spooled: u64,
    /// The TTL that removes rows.
    pub(super) ttl: Option<String>,
    pub(super) partition_key: String,
    /// Size of the deduplication window, in blocks that the table remembers.
    pub(super) window: Option<u64>,
    /// Active parts of the fullest partition.
    pub(super) parts: u64,
    pub(super) parts_to_delay: u64,
    pub(super) parts_to_throw: u64,
}

impl TableFacts {
    /// The engine, or "not found".
    pub(super) fn engine_name(&self) -> &str {
        if self.engine.is_empty() { "not found" } else { &self.engine }
    }

    pub(super) fn is_merge_tree(&self) -> bool {
        self.engine.ends_with("MergeTree")
    }

    /// Whether the table keeps its rows. A Null table only passes them to its views.
    pub(super) fn stores_rows(&self) -> bool {
        self.engine != "Null"
    }

    /// Whether a kill of the server loses acknowledged rows of this table.
    pub(super) fn is_volatile(&self) -> bool {
        self.class.is_some_and(EngineClass::is_volatile)
    }
}

/// The consumer's writer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer {
    pub(crate) max_age: Duration,
}

impl Writer {
    /// Time until the sink's default retry policy gives up an insert.
    const RETRIED_FOR: Duration = Duration::from_secs(300);

    /// Blocks that one writer may add while one insert is retried.
    pub(super) fn blocks_of_a_retry(&self) -> u64 {
        (Self::RETRIED_FOR.as_secs_f64() / self.max_age.as_secs_f64().max(0.001)).ceil() as u64 + 2
    }
}
