//! The ClickHouse reducer: its options, and the batch that it has open.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use ::clickhouse::Row;
use async_trait::async_trait;
use kmr_core::{AtShutdown, BatchOptions, BoxError, Chunk, Delivery, Reducer, RetryPolicy};
use serde::Serialize;

use super::config::{Compression, Config, Secret, Timeouts};
use super::delivery::{Destination, Exact, FrozenBatch, InsertReceipt};
use super::error::ClickHouseError;
use super::exactly_once::{FORBIDDEN, Window, windows};
use super::open_batch::OpenBatch;
use super::rows::{DescribedTable, EncodedRows};
use super::{schema, start, telemetry};

/// The server's own default for `max_insert_block_size`: a batch up to here is one block in any case.
const BLOCK_ROWS: usize = 1_048_449;

/// Inserts rows of type `R` into one table, in batches.
///
/// Rows are encoded where they are mapped, in parallel; a batch is one `INSERT … FORMAT RowBinaryWithNamesAndTypes` and
/// one block on the server. Its bytes and its `insert_deduplication_token` stay the same until it is acknowledged, so
/// that a table with a deduplication window drops what a retry sends again.
///
/// At the start the table's columns are compared with `R`, and a server that is not up yet is waited for. Of the types of
/// the fields the start knows nothing (serde shows them with the first value): a field of a wrong type stops the consumer
/// at the first row.
pub struct ClickHouseWriter<R> {
    config: Config,
    options: BatchOptions,
    started: Option<Started>,
    open: OpenBatch,
    row: PhantomData<fn(R)>,
}

/// What `start` found out.
struct Started {
    table: Arc<DescribedTable>,
    destination: Arc<Destination>,
    tokens: Tokens,
    /// In exactly-once mode: of the table, and of those that its views write to.
    windows: Option<Arc<[Window]>>,
}

impl<R: Row + Serialize + Send + 'static> ClickHouseWriter<R> {
    /// A writer to `table` of the server at `url`, such as `http://127.0.0.1:8123`. Nothing is connected yet.
    pub fn new(url: impl Into<String>, table: impl Into<String>) -> Self {
        Self {
            config: Config {
                url: url.into(),
                table: table.into(),
                database: None,
                user: None,
                password: None,
                settings: Vec::new(),
                compression: Compression::default(),
                timeouts: Timeouts {
                    connect: Duration::from_secs(3),
                    send: Duration::from_secs(5),
                    answer: Duration::from_secs(15),
                },
                start_timeout: Duration::from_secs(30),
            },
            options: BatchOptions::default(),
            started: None,
            open: OpenBatch::default(),
            row: PhantomData,
        }
    }

    /// The database. Default: that of the user.
    pub fn database(mut self, database: impl Into<String>) -> Self {
        self.config.database = Some(database.into());
        self
    }

    /// The user. Default: the server's `default`.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.config.user = Some(user.into());
        self
    }

    /// The user's password. It is sent in a header, and shown in no log, error or `Debug` output.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.config.password = Some(Secret(password.into()));
        self
    }

    /// How batches are packed. Default [`Compression::Lz4`], which costs some CPU and saves a half or more of the
    /// traffic; [`Compression::None`] pays off where the server is on the same machine.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = compression;
        self
    }

    /// A setting of ClickHouse for this writer's requests, such as `insert_quorum`. Settings that kmr relies on are
    /// refused at the start.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.settings.push((name.into(), value.into()));
        self
    }

    /// Rows in a batch. Default 32,768; at least 1. ClickHouse writes a part for every batch: small ones end in "too many
    /// parts", large ones cost memory here and there.
    pub fn max_records(mut self, records: usize) -> Self {
        self.options = self.options.with_max_records(records);
        self
    }

    /// Size of a batch in RowBinary, bytes. Default 8 MiB. One row is always admitted, however large. Up to
    /// `max_in_flight` + 1 batches are held at a time.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.options = self.options.with_max_bytes(bytes);
        self
    }

    /// Age of a batch since its first row. Default 1 s. Short: a quiet topic makes many small parts. Long: rows are
    /// visible later, and more is read again after a crash.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.options = self.options.with_max_age(age);
        self
    }

    /// Inserts under way at once. Default 2; at least 1. More hide the server's latency and cost it memory and parts.
    pub fn max_in_flight(mut self, inserts: usize) -> Self {
        self.options = self.options.with_max_in_flight(inserts);
        self
    }

    /// Time that one attempt may take as a whole. Default 20 s. Too short: inserts that were about to succeed are sent
    /// again, which doubles rows in a table without a deduplication window. Too long: a rebalance waits for it.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options = self.options.with_attempt_timeout(timeout);
        self
    }

    /// Waits between attempts, and when to give up. Default: 100 ms doubling up to 10 s, for 5 minutes.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.options = self.options.with_retry(retry);
        self
    }

    /// What happens to the open batch when the consumer stops. Default: it is inserted.
    pub fn at_shutdown(mut self, at_shutdown: AtShutdown) -> Self {
        self.options = self.options.with_at_shutdown(at_shutdown);
        self
    }

    /// Time to open a connection, the look-up of the name included. Default 3 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.timeouts.connect = timeout;
        self
    }

    /// Longest time, while a batch is sent, in which the server takes none of it. Default 5 s.
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.config.timeouts.send = timeout;
        self
    }

    /// Time from the last byte sent to the end of the answer: the server's own work, dependent views included. Default
    /// 15 s; it has its effect only below [`attempt_timeout`](Self::attempt_timeout).
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.config.timeouts.answer = timeout;
        self
    }

    /// How long a server that is not up yet is waited for at the start. Default 30 s; 0 tries once.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.config.start_timeout = timeout;
        self
    }

    async fn prepare(&self) -> Result<Started, ClickHouseError> {
        let endpoint = self.config.endpoint()?;
        let name = self.config.quoted_table();
        let described = start::describe(&endpoint, &name, self.config.start_timeout).await?;
        let schema = schema::check::<R>(&name, &described)?;
        telemetry::connected(&endpoint.address(), &name, schema.columns.len());
        let destination =
            Destination { endpoint, table: name.as_str().into(), compression: self.config.compression };
        Ok(Started {
            table: Arc::new(DescribedTable { name, schema }),
            destination: Arc::new(destination),
            tokens: Tokens::new(),
            windows: None,
        })
    }
}

impl Started {
    /// Path and parameters of one batch's insert. Block sizes are pinned so that the batch is one block: only a whole
    /// block is stored as a whole and deduplicated as a whole.
    fn target(&self, rows: usize) -> String {
        let block_rows = rows.max(BLOCK_ROWS).to_string();
        let schema = &self.table.schema;
        let mut parameters = vec![
            ("query", schema.insert.as_str()),
            ("wait_end_of_query", "1"),
            ("async_insert", "0"),
            ("max_insert_block_size", &block_rows),
            ("min_insert_block_size_rows", &block_rows),
            ("min_insert_block_size_bytes", "0"),
            ("input_format_parallel_parsing", "0"),
            ("deduplicate_blocks_in_dependent_materialized_views", "1"),
        ];
        if self.windows.is_some() {
            parameters.push(("insert_deduplicate", "1"));
        }
        if schema.json_as_text {
            parameters.push(("input_format_binary_read_json_as_string", "1"));
        }
        self.destination.endpoint.target(&parameters)
    }
}

/// Names of batches that no other batch of any process has.
struct Tokens {
    run: [u64; 2],
    next: u64,
}

impl Tokens {
    fn new() -> Self {
        // Each RandomState has keys of its own, seeded by the operating system.
        let random = || RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()));
        Self { run: [random(), random()], next: 0 }
    }

    fn next(&mut self) -> String {
        self.next += 1;
        format!("kmr-{:016x}{:016x}-{}", self.run[0], self.run[1], self.next)
    }
}

#[async_trait]
impl<R: Row + Serialize + Send + 'static> Reducer for ClickHouseWriter<R> {
    type Rows = EncodedRows<R>;
    type Output = InsertReceipt;

    fn options(&self) -> BatchOptions {
        self.options.clone()
    }

    async fn start(&mut self) -> Result<(), BoxError> {
        self.started = Some(self.prepare().await?);
        Ok(())
    }

    /// Checks that the table, and every table down the graph of its views, remembers tokens.
    async fn start_exactly_once(&mut self) -> Result<(), BoxError> {
        if let Some((name, _)) =
            self.config.settings.iter().find(|(name, _)| FORBIDDEN.contains(&name.as_str()))
        {
            let problem = format!(
                "the setting {name} decides what is dropped as a duplicate and cannot be changed with .setting()"
            );
            return Err(ClickHouseError::Config(problem).into());
        }
        let Some(started) = &mut self.started else {
            return Err(ClickHouseError::Config("start() has not described the table".into()).into());
        };
        let windows = windows(&started.destination.endpoint, &started.table.name).await?;
        for Window { database, table, blocks, time } in &windows {
            telemetry::window(database, table, *blocks, *time);
        }
        started.windows = Some(windows.into());
        Ok(())
    }

    fn rows(&self) -> EncodedRows<R> {
        EncodedRows::new(self.started.as_ref().map(|started| Arc::clone(&started.table)))
    }

    fn accept(&mut self, chunk: Chunk<EncodedRows<R>>) -> Result<(), BoxError> {
        let (bytes, rows) = chunk.rows.into_parts();
        self.open.append(bytes, rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = InsertReceipt>>, BoxError> {
        let Some(started) = &mut self.started else {
            return Err(
                ClickHouseError::Config("freeze() before start() had described the table".into()).into()
            );
        };
        let token = started.tokens.next();
        let mut open = std::mem::take(&mut self.open);
        let (rows, bytes) = (open.rows(), open.bytes());
        let target =
            started.target(self.options.max_records.max(usize::try_from(rows).unwrap_or(usize::MAX)));
        let exact = started.windows.clone().map(|windows| Exact { hash: open.hash(), windows });
        let segments = open.into_segments(started.table.schema.header.clone());
        let destination = Arc::clone(&started.destination);
        Ok(Box::new(FrozenBatch::new(destination, (target, token), (rows, bytes), segments).exact(exact)))
    }
}

impl<R> fmt::Debug for ClickHouseWriter<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClickHouseWriter")
            .field("config", &self.config)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Row, Serialize)]
    struct Reading {
        sensor: u32,
    }

    #[test]
    fn tokens_differ_within_and_between_runs() {
        let (mut one, mut other) = (Tokens::new(), Tokens::new());
        let tokens = [one.next(), one.next(), other.next(), other.next()];
        for (at, token) in tokens.iter().enumerate() {
            assert!(!tokens[at + 1..].contains(token), "{tokens:?}");
        }
    }

    #[test]
    fn the_password_is_not_in_debug_output() {
        let writer = ClickHouseWriter::<Reading>::new("http://db:8123", "t").user("me").password("s3cret");
        let text = format!("{writer:?}");
        assert!(text.contains("me") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn options_reach_the_framework() {
        let writer = ClickHouseWriter::<Reading>::new("http://db:8123", "t")
            .max_records(7)
            .max_age(Duration::from_secs(4))
            .at_shutdown(AtShutdown::Drop);
        let options = writer.options();
        assert_eq!((options.max_records, options.max_age), (7, Duration::from_secs(4)));
        assert_eq!(options.at_shutdown, AtShutdown::Drop);
    }
}
