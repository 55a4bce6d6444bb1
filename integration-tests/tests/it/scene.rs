//! The set-up of most tests: a topic, a group, a table, the test consumer, and checks of the table.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use futures_util::future::LocalBoxFuture;
use integration_tests::consumer::{Event, RowKind, Settings};
use integration_tests::{
    ClickHouse, Database, Deadline, Kafka, Message, Process, Produced, Topic, TopicSpec, log_line, unique,
    wait_until,
};
use tokio::sync::{Mutex, MutexGuard};

pub(crate) const TABLE: &str = "kmr_consumer_ingest";

/// A topic, a group and a table of one test.
pub(crate) struct Scene {
    pub(crate) topic: Topic,
    pub(crate) group: String,
    pub(crate) database: Database,
    row: RowKind,
}

/// The rows of one partition in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clickhouse::Row, serde::Deserialize)]
pub(crate) struct Stored {
    pub(crate) partition: u32,
    pub(crate) rows: u64,
    /// Distinct offsets.
    pub(crate) distinct: u64,
    pub(crate) lowest: u64,
    pub(crate) highest: u64,
}

impl Scene {
    /// A scene on the shared servers.
    pub(crate) async fn new(name: &str, topic: impl Into<TopicSpec>, row: RowKind) -> Result<Self> {
        Self::on(&Kafka::shared().await?, &ClickHouse::shared().await?, name, topic, row).await
    }

    /// A scene on servers of the test's own.
    pub(crate) async fn on(
        kafka: &Kafka,
        clickhouse: &ClickHouse,
        name: &str,
        topic: impl Into<TopicSpec>,
        row: RowKind,
    ) -> Result<Self> {
        let topic = kafka.create_topic(name, topic).await?;
        let database = clickhouse.database(name).await?;
        let (columns, key) = match row {
            RowKind::Ingest => ("timestamp DateTime", ", timestamp"),
            RowKind::Traced => {
                ("topic LowCardinality(String), number UInt64, consumer UInt32, mapped_at Int64", "")
            }
            RowKind::Payload => ("payload String", ""),
            RowKind::Folded => ("records UInt64, numbers UInt64", ""),
        };
        let create = format!(
            "CREATE TABLE {TABLE} (partition UInt32, offset UInt64, {columns}) ENGINE = MergeTree \
             PRIMARY KEY (partition, offset{key})"
        );
        database.exec(&create).await?;
        Ok(Self { topic, group: unique(name), database, row })
    }

    /// Settings of a consumer of this topic into this table.
    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings::new(self.topic.kafka().bootstrap(), &self.topic, &self.group);
        settings.clickhouse = self.database.server().url().to_owned();
        settings.database = self.database.name().to_owned();
        settings.table = TABLE.to_owned();
        settings.row = self.row;
        settings
    }

    /// Number of rows in the table, duplicates included.
    pub(crate) async fn rows(&self) -> Result<u64> {
        Ok(self.database.count(TABLE).await?)
    }

    /// Sum of the group's committed offsets, for a topic that starts at 0.
    pub(crate) async fn committed(&self) -> Result<u64> {
        Ok(self.topic.committed(&self.group).await?.values().map(|offset| offset.unsigned_abs()).sum())
    }

    /// Waits until every produced record is committed. Fails if the consumer ends first.
    pub(crate) async fn all_committed(&self, consumer: &Process, deadline: Deadline) -> Result<()> {
        wait_until(deadline, "all records are committed", async || {
            alive(consumer)?;
            Ok(self.topic.lag(&self.group).await? == 0)
        })
        .await
        .map_err(|error| error.context(format!("the consumer's standard error:\n{}", consumer.stderr())))
    }

    /// Waits until the table has `count` rows. Fails if the consumer ends first.
    pub(crate) async fn rows_reach(&self, count: u64, consumer: &Process, deadline: Deadline) -> Result<()> {
        wait_until(deadline, &format!("{count} rows are in the table"), async || {
            alive(consumer)?;
            Ok(self.rows().await? >= count)
        })
        .await
        .map_err(|error| error.context(format!("the consumer's standard error:\n{}", consumer.stderr())))
    }

    /// The rows in the table, by partition.
    pub(crate) async fn stored(&self) -> Result<BTreeMap<i32, Stored>> {
        let query = format!(
            "SELECT partition, count() AS rows, uniqExact(offset) AS distinct, min(offset) AS lowest, \
             max(offset) AS highest FROM {TABLE} GROUP BY partition"
        );
        let rows: Vec<Stored> = self.database.client().query(&query).fetch_all().await?;
        Ok(rows.into_iter().map(|row| (row.partition.cast_signed(), row)).collect())
    }

    /// Checks that every produced record is in the table and committed, partition by partition, for
    /// a topic without gaps. Returns the number of duplicate rows.
    pub(crate) async fn nothing_is_missing(&self, produced: &Produced) -> Result<u64> {
        let stored = self.stored().await?;
        let committed = self.topic.committed(&self.group).await?;
        ensure!(
            stored.keys().eq(produced.records.keys()),
            "the table has rows of other partitions than those produced to: {stored:?}, {produced:?}"
        );
        let mut duplicates = 0;
        for (partition, count) in &produced.records {
            let rows = stored[partition];
            let complete = rows.distinct == *count && rows.lowest == 0 && rows.highest == count - 1;
            ensure!(
                complete,
                "partition {partition}: {count} records were produced, and the table has {rows:?}"
            );
            let offset = committed.get(partition);
            ensure!(
                offset == Some(&count.cast_signed()),
                "partition {partition}: {count} records were produced, and offset {offset:?} is committed"
            );
            duplicates += rows.rows - rows.distinct;
        }
        Ok(duplicates)
    }

    /// Checks that the table has every offset below the committed one, for a topic without gaps
    /// (commit below unfinished, C1). Returns the sum of the committed offsets.
    pub(crate) async fn nothing_is_committed_ahead_of_the_table(&self) -> Result<u64> {
        let mut sum = 0;
        // Commits are read before the table, because the table grows meanwhile.
        for (partition, offset) in self.topic.committed(&self.group).await? {
            let query = format!(
                "SELECT uniqExact(offset) FROM {TABLE} WHERE partition = {partition} AND offset < {offset}"
            );
            let stored = self.database.number(&query).await?;
            ensure!(
                stored == offset.unsigned_abs(),
                "commit below unfinished (C1): partition {partition} is committed up to {offset}, and the table has {stored} of the \
                 offsets below"
            );
            sum += stored;
        }
        Ok(sum)
    }
}

/// Starts the test consumer.
pub(crate) fn start(settings: &Settings) -> Result<Process> {
    settings.spawn(env!("CARGO_BIN_EXE_test-consumer"))
}

/// Starts the test consumer with jemalloc, the allocator of kmr's programs.
pub(crate) fn start_with_jemalloc(settings: &Settings) -> Result<Process> {
    settings.spawn(env!("CARGO_BIN_EXE_test-consumer-jemalloc"))
}

/// Fails when the consumer has failed or ended.
pub(crate) fn alive(consumer: &Process) -> Result<()> {
    match Event::last(consumer) {
        Some(Event::Failed { error }) => bail!("the consumer failed: {error}"),
        Some(Event::Ended { .. }) => bail!("the consumer has ended"),
        _ => Ok(()),
    }
}

/// Messages `{"n":0}`, `{"n":1}`, … over `partitions` partitions in turn.
pub(crate) fn numbered(count: u64, partitions: i32) -> impl Iterator<Item = Message> + Send + 'static {
    (0..count).map(move |n| message(n, partitions))
}

/// The message `{"n":n}`, to partition `n` modulo `partitions`.
pub(crate) fn message(n: u64, partitions: i32) -> Message {
    let partition = n % u64::from(partitions.unsigned_abs());
    Message::new(format!("{{\"n\":{n}}}")).partition(partition as i32)
}

/// Runs heavy cases one after the other. As tests of their own, each would keep one of the threads
/// for tests while it waits for the others.
///
/// # Errors
/// The cases that fail, by their names. The others run nevertheless.
pub(crate) async fn in_turn(cases: Vec<(&str, LocalBoxFuture<'_, Result<()>>)>) -> Result<()> {
    let _alone = alone().await;
    let mut failed = Vec::new();
    for (name, case) in cases {
        let started = Instant::now();
        match case.await {
            Ok(()) => log_line(format_args!("{name}: ok, {:.0?}", started.elapsed())),
            Err(error) => failed.push(format!("{name}: {error:#}")),
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// The cases of [`in_turn`], from functions.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        vec![$((stringify!($case), Box::pin($case()) as futures_util::future::LocalBoxFuture<'_, _>)),+]
    };
}
pub(crate) use cases;

/// Lets only one heavy test run at a time, because another one would distort its figures.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::const_new(());
    HEAVY.lock().await
}
