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

use crate::clickhouse::batch::delivery::{FrozenBatch, InsertReceipt};
use crate::clickhouse::batch::destination::{Destination, Terms};
use crate::clickhouse::batch::encoded_batch::Content;
use crate::clickhouse::batch::limits::Limits;
use crate::clickhouse::batch::open_batch::OpenBatch;
use crate::clickhouse::batch::rows::{DescribedTable, EncodedRows};
use crate::clickhouse::config::{Compression, Config, SchemaChange, Secret, Timeouts};
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::exactly_once::{Exact, FORBIDDEN, Window, windows};
use crate::clickhouse::http::hosts::Hosts;
use crate::clickhouse::http::throttle::Pace;
use crate::clickhouse::table::record_columns::RecordColumns;
use crate::clickhouse::table::schema;
use crate::clickhouse::table::startup;
use crate::clickhouse::telemetry;

/// Inserts rows of type `R` into one table, in batches.
///
/// Rows are encoded where they are mapped, in parallel; a batch is one `INSERT … FORMAT RowBinaryWithNamesAndTypes` and
/// one block on the server. Its bytes and its `insert_deduplication_token` stay the same until it is acknowledged, so
/// that a table with a deduplication window drops what a retry sends again.
///
/// Rows that the server refuses are looked for: the good ones go in, each bad one goes to `reduce_err` with code, message and, where
/// the server names it, column. The receipt counts the inserts that it took.
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
    /// A writer to `table` of the server at `url`, such as `http://127.0.0.1:8123`; `https` needs the feature
    /// `clickhouse-tls`. Nothing is connected yet.
    pub fn new(url: impl Into<String>, table: impl Into<String>) -> Self {
        Self {
            config: Config {
                urls: vec![url.into()],
                table: table.into(),
                database: None,
                user: None,
                password: None,
                token: None,
                #[cfg(feature = "clickhouse-tls")]
                ca: None,
                settings: Vec::new(),
                quorum: None,
                record_columns: RecordColumns::new(),
                compression: Compression::default(),
                async_insert: false,
                limits: Limits::default(),
                schema_change: SchemaChange::default(),
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

    /// Another server of the same table. Inserts go to the first one that works; when it fails, the next one takes over. A
    /// batch whose answer was lost is sent to the same host again before it goes elsewhere.
    ///
    /// Rows come twice after such a change unless the servers are replicas of one table, which share its deduplication.
    /// Give hosts of one shard only: nothing spreads rows over several.
    pub fn or_host(mut self, url: impl Into<String>) -> Self {
        self.config.urls.push(url.into());
        self
    }

    /// A bearer token, such as a JWT of ClickHouse Cloud or of a proxy, in place of user and password. It is sent in the
    /// `Authorization` header, and shown in no log, error or `Debug` output.
    pub fn bearer_token(mut self, token: impl Into<String>) -> Self {
        self.config.token = Some(Secret(token.into()));
        self
    }

    /// A file of CA certificates in PEM that `https` servers are checked against, in place of the system's. It is read at the
    /// start.
    #[cfg(feature = "clickhouse-tls")]
    pub fn ca_certificate(mut self, file: impl Into<std::path::PathBuf>) -> Self {
        self.config.ca = Some(file.into());
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

    /// Columns that hold where a row comes from, without fields in `R`: topic, partition, offset, timestamp, key. Default: none.
    /// For rows that come from map stages; a writer behind another reduce stops the consumer at its first row.
    pub fn record_columns(mut self, columns: RecordColumns) -> Self {
        self.config.record_columns = columns;
        self
    }

    /// Replicas of a replicated table that have to have a batch before it counts as inserted (`insert_quorum`). Default: one, the
    /// server that it was sent to, and with that one what was acknowledged can be lost. The server waits for them for four fifths of
    /// [`answer_timeout`](Self::answer_timeout); a quorum that is not reached is tried again, and the consumer waits. Tables that are
    /// not replicated ignore it. For `auto` or other times use [`setting`](Self::setting) in its place.
    pub fn insert_quorum(mut self, replicas: u32) -> Self {
        self.config.quorum = Some(replicas);
        self
    }

    /// A setting of ClickHouse for this writer's requests, such as `max_execution_time`. Settings that kmr relies on are
    /// refused at the start.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.settings.push((name.into(), value.into()));
        self
    }

    /// Lets the server join inserts of several clients into one part (`async_insert=1`), for many consumers with small
    /// batches. Default: off. The answer is waited for in either case (`wait_for_async_insert=1`): kmr commits what is
    /// stored, not what is buffered. A row of another client can then refuse a batch of this one; it goes in part by part.
    pub fn async_insert(mut self, on: bool) -> Self {
        self.config.async_insert = on;
        self
    }

    /// Rows of one batch that the server may refuse. Default 1,000; 0 stops the consumer at the first one. Refused rows are
    /// looked for by inserting parts of the batch, and their records go to `reduce_err`; with more of them the consumer
    /// stops instead, and nothing of the batch is committed. A large number lets a broken mapping empty a topic.
    pub fn max_rejected(mut self, rows: usize) -> Self {
        self.config.limits.rows = rows;
        self
    }

    /// Share of the last rows, about 100,000, that the server may refuse, from 0 to 1. Default 0.1. It counts from 100 refused
    /// rows on; past it the consumer stops.
    pub fn max_rejected_share(mut self, share: f64) -> Self {
        self.config.limits.share = share;
        self
    }

    /// What becomes of rows that the table cannot take any more because it was changed. Default [`SchemaChange::Stop`]. Changes that keep
    /// every value (columns that were added or moved, wider types) are followed in either case. Not for exactly-once mode, where such
    /// rows always stop the consumer.
    pub fn on_schema_change(mut self, policy: SchemaChange) -> Self {
        self.config.schema_change = policy;
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
        let hosts = Hosts::new(self.config.endpoints()?);
        let name = self.config.quoted_table();
        let (host, described) = startup::describe(&hosts, &name, self.config.start_timeout).await?;
        let schema = schema::check::<R>(&name, &described, &self.config.record_columns)?;
        telemetry::connected(&hosts.endpoint(host).address(), &name, schema.columns.len());
        let table = Arc::new(DescribedTable { name, schema });
        let terms = Terms {
            compression: self.config.compression,
            limits: self.config.limits,
            schema_change: self.config.schema_change,
            pace: Pace::new(self.options.attempt_timeout),
            max_records: self.options.max_records,
            asynchronous: self.config.async_insert,
        };
        let destination = Arc::new(Destination::new(hosts, Arc::clone(&table), terms));
        Ok(Started { table, destination, tokens: Tokens::new(), windows: None })
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
    ///
    /// To find rows that the table refuses, the user needs CREATE TEMPORARY TABLE and CREATE ARBITRARY TEMPORARY TABLE: they are tried on
    /// a temporary table with the same columns and constraints that stores nothing.
    async fn start_exactly_once(&mut self) -> Result<(), BoxError> {
        let Some(started) = &mut self.started else {
            return Err(ClickHouseError::Config("start() has not described the table".into()).into());
        };
        let forbidden = self.config.settings.iter().find(|(name, _)| FORBIDDEN.contains(&name.as_str()));
        let problem = if let Some((name, _)) = forbidden {
            format!(
                "the setting {name} decides what is dropped as a duplicate and cannot be changed with .setting()"
            )
        } else if self.config.schema_change != SchemaChange::Stop {
            "rows of a planned block stay in it; leave out .on_schema_change()".to_owned()
        } else if self.config.async_insert {
            "the server may put asynchronous inserts together; leave out .async_insert()".to_owned()
        } else if started.destination.hosts.len() > 1 {
            "several hosts may not know each other's tokens; name one (a load balancer in front of replicas of one table will do)".to_owned()
        } else {
            let windows = windows(started.destination.hosts.endpoint(0), &started.table.name).await?;
            for Window { database, table, blocks, time } in &windows {
                telemetry::window(database, table, *blocks, *time);
            }
            started.windows = Some(windows.into());
            return Ok(());
        };
        Err(ClickHouseError::Config(problem).into())
    }

    fn rows(&self) -> EncodedRows<R> {
        EncodedRows::new(self.started.as_ref().map(|started| Arc::clone(&started.table)))
    }

    fn accept(&mut self, chunk: Chunk<EncodedRows<R>>) -> Result<(), BoxError> {
        let (bytes, ends) = chunk.rows.into_parts();
        self.open.append(bytes, ends);
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
        let bytes = open.bytes();
        let exact = started.windows.clone().map(|windows| Exact { hash: open.hash(), windows });
        let (segments, ends) = open.into_parts();
        let header = started.table.schema.header.clone();
        let content = Content::new(self.config.compression, header, ends, segments);
        let batch = FrozenBatch::new(Arc::clone(&started.destination), token, bytes, content);
        Ok(Box::new(batch.exact(exact)))
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
