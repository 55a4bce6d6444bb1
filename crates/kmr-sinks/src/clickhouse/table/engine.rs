//! What table engines do with the rows that they have acknowledged.

/// What a table's engine does with rows that it has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineClass {
    /// Stores the rows on disk (or in object storage) before it acknowledges them. They survive a
    /// kill of the server. Unless the table has `fsync_after_insert`, a loss of power can take the
    /// last of them.
    Durable,
    /// Holds the rows in memory and writes them to another table later: Buffer. A kill of the
    /// server loses the rows in between.
    Buffered,
    /// Passes the rows on, to other tables or to another system, and has its guarantee.
    Forwarding,
    /// Keeps the rows in memory, or not at all: Memory, Null.
    Forgetting,
    /// Accepts no inserts: View, Dictionary.
    ReadOnly,
    /// An engine that kmr does not know.
    Unknown,
}

impl EngineClass {
    /// The class of `engine`. `engine_full` is its definition with arguments and settings, as in
    /// `system.tables`.
    pub fn of(engine: &str, engine_full: &str) -> Self {
        match engine {
            _ if engine.ends_with("MergeTree") => Self::Durable,
            "Log" | "TinyLog" | "StripeLog" | "EmbeddedRocksDB" | "KeeperMap" => Self::Durable,
            "Set" | "Join" if engine_full.contains("persistent = 0") => Self::Forgetting,
            "Set" | "Join" => Self::Durable,
            "Buffer" => Self::Buffered,
            "Memory" | "Null" => Self::Forgetting,
            "View" | "Dictionary" | "GenerateRandom" | "Loop" | "FuzzJSON" | "FuzzQuery" | "FileLog"
            | "S3Queue" | "AzureQueue" | "Executable" | "ExecutablePool" => Self::ReadOnly,
            _ if is_forwarding(engine) => Self::Forwarding,
            _ => Self::Unknown,
        }
    }

    /// Whether a kill of the server loses rows that were acknowledged.
    pub fn is_volatile(self) -> bool {
        matches!(self, Self::Buffered | Self::Forgetting)
    }
}

fn is_forwarding(engine: &str) -> bool {
    const TABLES: [&str; 7] =
        ["Alias", "Distributed", "MaterializedView", "Merge", "Remote", "RemoteSecure", "TimeSeries"];
    const SYSTEMS: [&str; 22] = [
        "ArrowFlight",
        "AzureBlobStorage",
        "COSN",
        "File",
        "GCS",
        "HDFS",
        "Hive",
        "JDBC",
        "Kafka",
        "MongoDB",
        "MySQL",
        "NATS",
        "ODBC",
        "OSS",
        "PostgreSQL",
        "RabbitMQ",
        "Redis",
        "S3",
        "SQLite",
        "URL",
        "YTsaurus",
        "ExternalDistributed",
    ];
    const LAKES: [&str; 4] = ["DeltaLake", "Hudi", "Iceberg", "Paimon"];
    TABLES.contains(&engine)
        || SYSTEMS.contains(&engine)
        || LAKES.iter().any(|prefix| engine.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_classed_by_what_a_kill_of_the_server_leaves() {
        let class = |engine: &str| EngineClass::of(engine, engine);
        for engine in ["MergeTree", "ReplicatedSummingMergeTree", "SharedMergeTree", "StripeLog", "Set"] {
            assert_eq!(class(engine), EngineClass::Durable, "{engine}");
        }
        assert_eq!(class("Buffer"), EngineClass::Buffered);
        assert_eq!(
            EngineClass::of("Join", "Join(ANY, LEFT, a) SETTINGS persistent = 0"),
            EngineClass::Forgetting
        );
        for engine in ["Memory", "Null"] {
            assert!(class(engine) == EngineClass::Forgetting && class(engine).is_volatile(), "{engine}");
        }
        for engine in ["Distributed", "Kafka", "IcebergS3", "MaterializedView"] {
            assert!(class(engine) == EngineClass::Forwarding && !class(engine).is_volatile(), "{engine}");
        }
        assert_eq!(class("View"), EngineClass::ReadOnly);
        assert_eq!(class("FromTheFuture"), EngineClass::Unknown);
    }
}
