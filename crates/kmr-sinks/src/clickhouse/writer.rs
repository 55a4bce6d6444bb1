//! The ClickHouse reducer: its options and its open batch.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kmr_core::{BatchOptions, BoxError, Chunk, Delivery, Reducer};

use crate::batch_setters::batch_setters;
use crate::clickhouse::access_token::{AccessToken, TokenProvider};
use crate::clickhouse::batch::open_batch::OpenBatch;
use crate::clickhouse::batch::receipt::InsertReceipt;
use crate::clickhouse::batch::row_type::ClickHouseRow;
use crate::clickhouse::batch::rows::EncodedRows;
use crate::clickhouse::compression::Compression;
use crate::clickhouse::config::{Config, SchemaChange};
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::secret::Secret;
#[cfg(feature = "clickhouse-tls")]
use crate::clickhouse::http::tls::ClientFiles;
use crate::clickhouse::json::{JsonOptions, JsonRow};
use crate::clickhouse::metrics::InsertMetrics;
use crate::clickhouse::started::Started;
use crate::clickhouse::table::ranges::OutOfRange;
use crate::clickhouse::table::record_columns::RecordColumns;

/// Inserts rows of type `R` into one table, in batches.
///
/// Map tasks encode the rows in parallel. A batch is one `INSERT … FORMAT
/// RowBinaryWithNamesAndTypes` and one block on the server. Its bytes and its
/// `insert_deduplication_token` stay the same until it is acknowledged, so a table with a
/// deduplication window drops the rows that a retry repeats.
///
/// The writer finds the rows that the server rejects. It inserts the good rows. Each bad row goes
/// to `reduce_err` with code, message and, where the server names it, column. The receipt counts
/// the inserts.
///
/// At the start the writer waits for the server and compares the table's columns with the field
/// names of `R`. It cannot check the types of the fields yet, because serde shows them only with
/// the first value. A field of a wrong type stops the consumer at the first row.
pub struct ClickHouseWriter<R> {
    config: Config,
    options: BatchOptions,
    metrics: InsertMetrics,
    started: Option<Started>,
    open: OpenBatch,
    row: PhantomData<fn(R)>,
}

impl<R: ClickHouseRow> ClickHouseWriter<R> {
    /// A writer to `table` of the server at `url`, such as `http://127.0.0.1:8123`. `https` needs
    /// the feature `clickhouse-tls`. This does not connect yet.
    pub fn new(url: impl Into<String>, table: impl Into<String>) -> Self {
        Self {
            config: Config::new(url.into(), table.into()),
            options: BatchOptions::default(),
            metrics: InsertMetrics::default(),
            started: None,
            open: OpenBatch::default(),
            row: PhantomData,
        }
    }

    /// The database. Default: the user's.
    pub fn database(mut self, database: impl Into<String>) -> Self {
        self.config.database = Some(database.into());
        self
    }

    /// The user. Default: the server's `default`.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.config.user = Some(user.into());
        self
    }

    /// Another server of the same table. Inserts go to the first server that works. When it fails,
    /// the next one takes over. A batch whose response was lost is sent to the same host again
    /// before another one.
    ///
    /// After a change of the host, rows can be stored twice, unless the servers are replicas of one
    /// table, which share its deduplication. All hosts must belong to one shard: the writer does
    /// not distribute rows over shards.
    pub fn fallback_host(mut self, url: impl Into<String>) -> Self {
        self.config.urls.push(url.into());
        self
    }

    /// A bearer token, such as a JWT of ClickHouse Cloud or of a proxy, instead of user and
    /// password. The writer sends it in the `Authorization` header. No log, error or `Debug` output
    /// shows it.
    pub fn bearer_token(mut self, token: impl Into<String>) -> Self {
        self.config.token = Some(Secret(token.into()));
        self
    }

    /// A file whose content is the bearer token, without the line break at its end. It can change
    /// while the writer runs, as with [`password_file`](Self::password_file).
    pub fn bearer_token_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.config.token_file = Some(file.into());
        self
    }

    /// A closure that returns bearer tokens, for tokens that expire.
    ///
    /// The writer calls it before the first request, and again after 80 % of the token's lifetime
    /// ([`AccessToken::expires_in`]) or when the server has rejected the token. Then it repeats the
    /// request once, at once, with the next token. It runs once at a time, for at most
    /// [`response_timeout`](Self::response_timeout). While its token is valid, other requests do
    /// not wait.
    ///
    /// # Errors
    /// An error of the closure, or its time limit, is retryable. The message has the closure's
    /// error, and never a token. If the token has not expired yet, it is logged only. A token that
    /// is rejected again is an error as with [`password_file`](Self::password_file).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// use kmr_sinks::clickhouse::{AccessToken, ClickHouseWriter, JsonRow};
    ///
    /// async fn fetch() -> std::io::Result<AccessToken> {
    ///     // Ask the identity provider.
    ///     Ok(AccessToken::new("eyJhbGciOi").expires_in(Duration::from_secs(3600)))
    /// }
    ///
    /// let writer = ClickHouseWriter::<JsonRow>::new("https://db:8443", "events");
    /// let writer = writer.bearer_token_from(fetch);
    /// ```
    pub fn bearer_token_from<F, T, E>(mut self, provider: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<AccessToken, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.config.token_from = Some(TokenProvider::new(provider));
        self
    }

    /// A PEM file of the CA certificates that `https` servers are checked against, instead of the
    /// system's. It can change while the writer runs, as with
    /// [`client_certificate`](Self::client_certificate).
    #[cfg(feature = "clickhouse-tls")]
    pub fn ca_certificate(mut self, file: impl Into<PathBuf>) -> Self {
        self.config.tls.ca = Some(file.into());
        self
    }

    /// PEM files of the client's certificate, with its chain, and of its key, for servers that
    /// require one (mutual TLS). All hosts must be `https`. The key must not be encrypted.
    ///
    /// The files can change while the writer runs. It compares their content before a request, at
    /// most once every 2 s, and at once after a handshake has failed because of a certificate. New
    /// connections use the new certificates, and no connection with the old ones is used again. A
    /// key that does not fit its certificate, as in the middle of a rotation, keeps the old pair
    /// and logs a warning. A certificate that is rejected after one of these files was accepted is
    /// retryable for 2 minutes.
    ///
    /// # Errors
    /// The start names a file that cannot be read, is empty, holds no PEM, or does not fit the
    /// other one.
    #[cfg(feature = "clickhouse-tls")]
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let files = ClientFiles { certificate: certificate.into(), key: key.into() };
        self.config.tls.client = Some(files);
        self
    }

    /// The user's password. The writer sends it in a header. No log, error or `Debug` output shows
    /// it.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.config.password = Some(Secret(password.into()));
        self
    }

    /// A file whose content is the user's password, without the line break at its end. It can
    /// change while the writer runs.
    ///
    /// The writer reads it again before a request, at most once every 2 s, and at once after the
    /// server has rejected the password. Then it repeats the request once, at once, with the new
    /// password. A file that cannot be read or is empty keeps the password before it and logs a
    /// warning.
    ///
    /// # Errors
    /// The start names a file that cannot be read, is empty, has several lines or more than 1 MiB.
    /// A password that is rejected at the start is an error at once. Server and file may change one
    /// after the other: after the server has accepted a password of the file, a rejection is
    /// retryable for 2 minutes, and then it stops the consumer.
    pub fn password_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.config.password_file = Some(file.into());
        self
    }

    /// How batches are compressed. Default [`Compression::Lz4`], which costs some CPU time and
    /// saves half or more of the traffic. [`Compression::None`] is better for a server on the same
    /// machine.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = compression;
        self
    }

    /// Columns for the source of a row, which are not fields of `R`: topic, partition, offset,
    /// timestamp, key, headers. Default: none. They need rows from map stages. A writer downstream
    /// of another reduce stage stops the consumer at its first row.
    pub fn record_columns(mut self, columns: RecordColumns) -> Self {
        self.config.record_columns = columns;
        self
    }

    /// Replicas of a replicated table that must store a batch before it counts as inserted
    /// (`insert_quorum`). Default: one, the server of the insert; if that server is lost,
    /// acknowledged rows can be lost with it. The server waits for the quorum for four fifths of
    /// [`response_timeout`](Self::response_timeout). If the quorum is not reached, kmr retries and
    /// the consumer waits. Tables that are not replicated ignore it. For `auto` or another time,
    /// use [`setting`](Self::setting) instead.
    pub fn insert_quorum(mut self, replicas: u32) -> Self {
        self.config.quorum = Some(replicas);
        self
    }

    /// A ClickHouse setting for this writer's requests, such as `max_execution_time`. The start
    /// rejects settings that kmr relies on.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.settings.push((name.into(), value.into()));
        self
    }

    /// Lets the server combine inserts of several clients in one part (`async_insert=1`), for many
    /// consumers with small batches. Default: off. kmr waits for the response in either case
    /// (`wait_for_async_insert=1`), so it commits only stored rows. A bad row of another client can
    /// make the server reject a batch of this one. So a rejected batch is inserted again without
    /// `async_insert`, before a row of it is rejected.
    ///
    /// Servers before 26.4 reject asynchronous inserts that are deduplicated also in views, whether
    /// the table has views or not. The writer detects them by their error, logs it, and turns the
    /// deduplication of asynchronous inserts off. There, rows that are sent twice are stored twice,
    /// also in a table with a deduplication window. So a temporary error of a view is retried only
    /// three times.
    pub fn async_insert(mut self, on: bool) -> Self {
        self.config.async_insert = on;
        self
    }

    /// Allows a table that loses acknowledged rows when the server is killed: a Buffer or Memory
    /// table, a Set or Join table that is not persistent, or a Null table none of whose views
    /// writes to a durable table. Default: off, and the start rejects such a table. kmr commits the
    /// offsets of acknowledged rows, so it never inserts lost rows again.
    ///
    /// [`EngineClass`](super::EngineClass) lists the engines. A target of a view that is in memory
    /// is only logged.
    pub fn allow_volatile_table(mut self, allow: bool) -> Self {
        self.config.allow_volatile_table = allow;
        self
    }

    /// Maximum number of rejected rows in one batch. Default 1,000; 0 stops the consumer at the
    /// first one. The writer finds rejected rows by inserts of parts of the batch, and their
    /// records go to `reduce_err`. Above the limit the consumer stops, and nothing of the batch is
    /// committed. With a large limit, a broken mapping can turn a whole topic into dead letters.
    pub fn max_rejected(mut self, rows: usize) -> Self {
        self.config.limits.rows = rows;
        self
    }

    /// Maximum ratio of rejected rows among the last 100,000 rows, approximately; from 0 to 1.
    /// Default 0.1. It applies from 100 rejected rows on. Above it the consumer stops.
    pub fn max_rejected_ratio(mut self, ratio: f64) -> Self {
        self.config.limits.ratio = ratio;
        self
    }

    /// What happens to rows that the table can no longer store after a schema change. Default
    /// [`SchemaChange::Stop`]. With every policy, the writer adapts to changes that keep every
    /// value: added columns, moved columns, wider types. In exactly-once mode only the default is
    /// allowed.
    pub fn schema_change_policy(mut self, policy: SchemaChange) -> Self {
        self.config.schema_change = policy;
        self
    }

    /// What happens to a value that its column cannot store: a date or a time outside of the years
    /// that the server knows, a decimal of too many digits, a record's timestamp in a column of
    /// [`record_columns`](Self::record_columns). Default [`OutOfRange::Reject`]: the record goes to
    /// `reduce_err`. The module's documentation lists the ranges.
    pub fn out_of_range_policy(mut self, policy: OutOfRange) -> Self {
        self.config.out_of_range = policy;
        self
    }

    batch_setters! {
        /// ClickHouse writes one part for every batch. Small batches lead to "too many parts".
        /// Large ones cost memory in the consumer and on the server.
        max_rows;
        /// The size is that in RowBinary. The writer holds up to `max_in_flight` + 1 batches.
        max_bytes;
        /// If it is short, a quiet topic makes many small parts. If it is long, rows are visible
        /// later, and the consumer reads more records again after a crash.
        max_age;
        /// Default 2. More inserts hide the server's latency, and cost the server memory and parts.
        max_in_flight;
        /// If it is too short, inserts that were about to succeed are sent again, which duplicates
        /// rows in a table without a deduplication window. If it is too long, a rebalance waits for
        /// it.
        attempt_timeout;
        retry;
        partial_batch;
    }

    /// Time limit to open a connection, including the name lookup. Default 3 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.timeouts.connect = timeout;
        self
    }

    /// Longest time without progress while a batch is sent. Default 5 s.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.config.timeouts.write = timeout;
        self
    }

    /// Time limit from the last byte sent to the end of the response: the server's own work,
    /// including dependent views. Default 15 s. It has an effect only below
    /// [`attempt_timeout`](Self::attempt_timeout).
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.config.timeouts.response = timeout;
        self
    }

    /// How long the start waits for an unavailable server. Default 5 min; 0 tries once. A paused
    /// service of ClickHouse Cloud needs a minute or two until it accepts connections. A wrong
    /// password, an unknown table and a certificate that is not trusted fail at once. The log shows
    /// the first failure, and one each 30 s.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.config.start_timeout = timeout;
        self
    }
}

impl ClickHouseWriter<JsonRow> {
    /// How JSON objects become rows. Default: [`JsonOptions::new`].
    pub fn json(mut self, options: JsonOptions) -> Self {
        self.config.json = options;
        self
    }
}

#[async_trait]
impl<R: ClickHouseRow> Reducer for ClickHouseWriter<R> {
    type Rows = EncodedRows<R>;
    type Output = InsertReceipt;

    fn options(&self) -> BatchOptions {
        self.options.clone()
    }

    #[cfg(feature = "metrics")]
    fn metrics(&mut self, metrics: kmr_core::StageMetrics) {
        self.metrics = InsertMetrics::new(metrics);
    }

    async fn start(&mut self) -> Result<(), BoxError> {
        self.started = Some(Started::new::<R>(&self.config, &self.options, &self.metrics).await?);
        Ok(())
    }

    /// Checks that the table, and every table in the graph of its views, has a deduplication
    /// window.
    ///
    /// To find rows that the table rejects, the user needs CREATE TEMPORARY TABLE and CREATE
    /// ARBITRARY TEMPORARY TABLE: the writer tests them on a temporary table that stores nothing.
    async fn start_exactly_once(&mut self) -> Result<(), BoxError> {
        let Some(started) = &mut self.started else {
            return Err(not_started("start_exactly_once() was called before start()"));
        };
        Ok(started.start_exactly_once(&self.config).await?)
    }

    fn new_rows(&self) -> EncodedRows<R> {
        EncodedRows::new(self.started.as_ref().map(|started| Arc::clone(&started.table)))
    }

    fn accept(&mut self, chunk: Chunk<EncodedRows<R>>) -> Result<(), BoxError> {
        let (bytes, ends) = chunk.rows.into_parts();
        self.open.append(bytes, ends);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = InsertReceipt>>, BoxError> {
        let Some(started) = &mut self.started else {
            return Err(not_started("freeze() was called before start()"));
        };
        Ok(Box::new(started.freeze(std::mem::take(&mut self.open), &self.config)))
    }
}

fn not_started(problem: &str) -> BoxError {
    ClickHouseError::Config(problem.to_owned()).into()
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
    use ::clickhouse::Row;
    use kmr_core::PartialBatch;
    use serde::Serialize;

    use super::*;

    #[derive(Row, Serialize)]
    struct Reading {
        sensor: u32,
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
            .max_rows(7)
            .max_age(Duration::from_secs(4))
            .partial_batch(PartialBatch::Discard);
        let options = writer.options();
        assert_eq!((options.max_rows, options.max_age), (7, Duration::from_secs(4)));
        assert_eq!(options.partial_batch, PartialBatch::Discard);
    }
}
