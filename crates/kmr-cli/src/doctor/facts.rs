//! What was found out, unjudged.

use std::collections::BTreeMap;
use std::time::Duration;

use kmr_core::SettingNote;

use crate::cli::{Protocol, RunArgs};

/// Everything that is judged.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) settings: SettingsFacts,
    pub(super) kafka: KafkaFacts,
    pub(super) clickhouse: ClickHouseFacts,
    pub(super) writer: Writer,
}

/// The client's settings.
#[derive(Clone, Debug, Default)]
pub(super) struct SettingsFacts {
    /// Why no consumer can be built from them.
    pub(super) refused: Option<String>,
    pub(super) notes: Vec<SettingNote>,
}

/// An answer, or the words in its place.
pub(super) type Answer<T> = Result<T, String>;

/// Whether something may be done.
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
    /// `host:port` of every broker.
    pub(super) brokers: Answer<Vec<String>>,
    /// Requests that the broker knows, each with its versions.
    pub(super) apis: BTreeMap<String, (i16, i16)>,
    pub(super) partitions: Answer<Vec<PartitionFacts>>,
    pub(super) may_read: Access,
    pub(super) may_commit: Access,
    /// `None`: no classic group of that name.
    pub(super) group_state: Answer<Option<GroupFacts>>,
    /// What the group has committed could be read.
    pub(super) committed: Answer<()>,
}

/// One partition of the topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionFacts {
    pub(super) id: i32,
    pub(super) has_leader: bool,
    pub(super) replicas: usize,
    pub(super) in_sync: usize,
    /// Lowest offset, and the one behind the last.
    pub(super) log: Option<(i64, i64)>,
    pub(super) committed: Option<i64>,
}

/// A classic group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupFacts {
    pub(super) state: String,
    /// The assignor in force.
    pub(super) assignor: String,
    pub(super) members: usize,
}

/// The server and the table.
#[derive(Clone, Debug)]
pub(super) struct ClickHouseFacts {
    pub(super) address: String,
    /// Database and table.
    pub(super) table: String,
    pub(super) version: Answer<String>,
    /// The table, and everything that its views write to. Empty: there is no such table.
    pub(super) tables: Answer<Vec<TableFacts>>,
    /// Whether the demo's row can be written.
    pub(super) row: Answer<()>,
    pub(super) may_insert: Access,
    /// The user's setting `insert_deduplicate`.
    pub(super) deduplicates: Option<bool>,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TableFacts {
    pub(super) name: String,
    /// The view that writes to it; `None` for the table that is inserted to.
    pub(super) view: Option<String>,
    /// Empty: it could not be found.
    pub(super) engine: String,
    pub(super) partition_key: String,
    /// Blocks whose tokens are remembered.
    pub(super) window: Option<u64>,
    /// Active parts of the partition that has most.
    pub(super) parts: u64,
    pub(super) parts_to_delay: u64,
    pub(super) parts_to_throw: u64,
}

/// How the writer of `run` behaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    pub(super) max_age: Duration,
}

impl Writer {
    pub(super) fn of(args: &RunArgs) -> Self {
        Self { max_age: args.tuning.max_age }
    }

    /// How long an insert is tried again, by the sink's default retry policy.
    const RETRIED_FOR: Duration = Duration::from_secs(300);

    /// Blocks that one writer may add while one insert is tried again.
    pub(super) fn blocks_of_a_retry(&self) -> u64 {
        (Self::RETRIED_FOR.as_secs_f64() / self.max_age.as_secs_f64().max(0.001)).ceil() as u64 + 2
    }
}
