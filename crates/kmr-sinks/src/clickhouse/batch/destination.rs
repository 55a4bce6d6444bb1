//! What all batches of one writer share: hosts, statement, limits, and the state of the server.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;

use crate::clickhouse::batch::facts::TableFacts;
use crate::clickhouse::batch::limits::{RejectionLimits, Tally};
use crate::clickhouse::compression::Compression;
use crate::clickhouse::config::SchemaChange;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::error_code::ErrorClass;
use crate::clickhouse::http::body::compress;
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::hosts::{HostFault, Hosts};
use crate::clickhouse::http::request::post;
use crate::clickhouse::http::response::{Outcome, Sent, insert_outcome};
use crate::clickhouse::http::settings::{BLOCK_ROWS, TOKEN, insert_settings};
use crate::clickhouse::http::throttle::Throttle;
use crate::clickhouse::metrics::{EndedInsert, InsertMetrics};
use crate::clickhouse::table::conversion::with_remedy;
use crate::clickhouse::table::described::DescribedTable;
use crate::clickhouse::table::schema::plain_insert;
use crate::clickhouse::table::{schema_change, startup};
use crate::clickhouse::telemetry;

/// ClickHouse's code for a feature that is disabled.
const SUPPORT_IS_DISABLED: u32 = 344;
/// Bytes of the longest target of a request, about. Proxies limit a request line to 8 KiB (nginx,
/// Apache) or less, and some count the headers too.
const LONGEST_TARGET: usize = 4_000;

/// The destination of the batches of one writer.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) hosts: Hosts,
    /// The table as described at the start; rows are encoded for it.
    pub(crate) table: Arc<DescribedTable>,
    pub(crate) name: Arc<str>,
    pub(crate) compression: Compression,
    pub(crate) schema_change: SchemaChange,
    limits: RejectionLimits,
    throttle: Throttle,
    metrics: InsertMetrics,
    block_rows: u64,
    pub(crate) async_insert: bool,
    /// Whether the server deduplicates asynchronous inserts together with the rows of views.
    joins_views_and_async_inserts: AtomicBool,
    statement: RwLock<Arc<str>>,
    /// The statement under which the server converts nothing.
    plain_statement: String,
    tally: Mutex<Tally>,
    /// Accepted inserts of all batches.
    inserts: AtomicU64,
    pub(crate) facts: TableFacts,
}

/// The options of a [`Destination`].
pub(crate) struct DestinationOptions {
    pub(crate) compression: Compression,
    pub(crate) limits: RejectionLimits,
    pub(crate) schema_change: SchemaChange,
    pub(crate) throttle: Throttle,
    pub(crate) metrics: InsertMetrics,
    pub(crate) max_rows: usize,
    pub(crate) async_insert: bool,
}

/// One insert.
pub(crate) struct Insert<'i> {
    pub(crate) statement: &'i str,
    pub(crate) token: &'i str,
    pub(crate) rows: u64,
    /// Whether the server may combine it with other inserts.
    pub(crate) is_async: bool,
    pub(crate) body: Vec<Bytes>,
}

impl Destination {
    pub(crate) fn new(hosts: Hosts, table: Arc<DescribedTable>, options: DestinationOptions) -> Self {
        Self {
            hosts,
            name: table.name.as_str().into(),
            statement: RwLock::new(table.schema.insert.as_str().into()),
            plain_statement: plain_insert(&table.name, &table.schema.columns),
            table,
            compression: options.compression,
            limits: options.limits,
            schema_change: options.schema_change,
            throttle: options.throttle,
            metrics: options.metrics,
            block_rows: options.max_rows.max(BLOCK_ROWS) as u64,
            async_insert: options.async_insert,
            joins_views_and_async_inserts: AtomicBool::new(true),
            tally: Mutex::default(),
            inserts: AtomicU64::new(0),
            facts: TableFacts::default(),
        }
    }

    /// Path, parameters and body of one insert. They pin the block sizes so that the insert is one
    /// block: the server stores and deduplicates only whole blocks.
    async fn request(
        &self,
        endpoint: &Endpoint,
        insert: &Insert<'_>,
    ) -> Result<(String, Vec<Bytes>), ClickHouseError> {
        let block_rows = self.block_rows(insert.rows).to_string();
        let mut parameters = insert_settings(&block_rows, insert.is_async);
        if !insert.is_async || self.joins_views_and_async_inserts.load(Ordering::Relaxed) {
            parameters.push(("deduplicate_blocks_in_dependent_materialized_views", "1"));
        } else {
            parameters.extend([
                ("deduplicate_blocks_in_dependent_materialized_views", "0"),
                ("async_insert_deduplicate", "0"),
            ]);
        }
        parameters.push((TOKEN, insert.token));
        parameters.extend(self.format_settings());
        self.with_statement(endpoint, insert.statement, &parameters, insert.body.clone()).await
    }

    /// Puts the statement into the target, or before the rows in the body if the target would be
    /// too long for a proxy. ClickHouse itself joins both to one text before it parses the
    /// statement.
    pub(crate) async fn with_statement(
        &self,
        endpoint: &Endpoint,
        statement: &str,
        parameters: &[(&str, &str)],
        mut body: Vec<Bytes>,
    ) -> Result<(String, Vec<Bytes>), ClickHouseError> {
        let in_target: Vec<_> =
            std::iter::once(("query", statement)).chain(parameters.iter().copied()).collect();
        let target = endpoint.target(&in_target);
        if target.len() <= LONGEST_TARGET {
            return Ok((target, body));
        }
        // A compressed body is a sequence of frames.
        let line = vec![Bytes::from(format!("{statement}\n"))];
        let frame = compress(self.compression, line).await.map_err(ClickHouseError::Compression)?;
        body.splice(0..0, frame);
        Ok((endpoint.target(parameters), body))
    }

    /// Settings that decide how the server reads the values.
    pub(crate) fn format_settings(&self) -> Vec<(&'static str, &'static str)> {
        let schema = &self.table.schema;
        let json = schema.json_as_text.then_some(("input_format_binary_read_json_as_string", "1"));
        let has_defaults = schema.columns.iter().any(|column| column.null_is_default);
        json.into_iter().chain(has_defaults.then_some(("insert_null_as_default", "1"))).collect()
    }

    /// The block size for `rows` rows. A planned block ends with a whole record, whose rows can
    /// exceed the limit of a batch.
    pub(crate) fn block_rows(&self, rows: u64) -> u64 {
        self.block_rows.max(rows)
    }

    /// Waits while inserts are slowed down. It comes before
    /// [`checked_statement`](Self::checked_statement), so that no ALTER falls into the wait
    /// unnoticed.
    pub(crate) async fn wait_for_throttle(&self) {
        self.throttle.wait().await;
    }

    /// Performs one insert at one host.
    pub(crate) async fn insert(&self, host: usize, insert: Insert<'_>) -> Result<Outcome, ClickHouseError> {
        let endpoint = self.hosts.endpoint(host);
        let started = Instant::now();
        let mut is_without_views = false;
        let mut outcome = self.send(endpoint, &insert).await;
        while outcome.as_ref().is_err_and(|error| self.adapt(endpoint, error, &mut is_without_views)) {
            outcome = self.send(endpoint, &insert).await;
        }
        self.metrics.ended(&EndedInsert {
            table: &self.name,
            rows: insert.rows,
            bytes: insert.body.iter().map(|part| part.len() as u64).sum(),
            took: started.elapsed(),
            error: outcome.as_ref().err(),
        });
        match &outcome {
            Ok(_) => {
                self.hosts.record(host, HostFault::None);
                self.throttle.reset();
                self.inserts.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let backoff = self.hosts.record(host, HostFault::of(error));
                if let Some(backoff) = backoff.filter(|_| self.hosts.len() > 1) {
                    telemetry::host_failed(&endpoint.address(), backoff);
                }
                if error.class() == Some(ErrorClass::TooManyParts) {
                    telemetry::too_many_parts(&self.name, self.throttle.slow_down());
                }
            }
        }
        outcome
    }

    async fn send(&self, endpoint: &Endpoint, insert: &Insert<'_>) -> Result<Outcome, ClickHouseError> {
        let (target, body) = self.request(endpoint, insert).await?;
        let response = post(endpoint, &target, body, self.compression.content_encoding()).await?;
        let sent = Sent { rows: insert.rows, is_async: insert.is_async };
        let outcome = insert_outcome(&response, endpoint, &self.name, sent);
        if insert.statement == self.plain_statement { outcome } else { outcome.map_err(with_remedy) }
    }

    /// Adapts the settings to a server that rejected them before it read the rows. Returns whether
    /// the insert can be sent again. `is_without_views` is whether this insert was sent again
    /// without the deduplication in views.
    fn adapt(&self, endpoint: &Endpoint, error: &ClickHouseError, is_without_views: &mut bool) -> bool {
        if endpoint.pins.adapt(error) {
            return true;
        }
        // Servers before 26.4 reject every asynchronous insert with this setting, whether the table
        // has views or not.
        let ClickHouseError::Exception { code: SUPPORT_IS_DISABLED, message, .. } = error else {
            return false;
        };
        let is_about_views = message.contains("deduplicate_blocks_in_dependent_materialized_views");
        // Once for each insert. One that was sent at the same time may have cleared the flag.
        if !self.async_insert || !is_about_views || std::mem::replace(is_without_views, true) {
            return false;
        }
        if self.joins_views_and_async_inserts.swap(false, Ordering::Relaxed) {
            telemetry::async_inserts_not_deduplicated(&endpoint.address(), &self.name);
        }
        true
    }

    /// Whether inserts are sent such that the server drops those that it has stored before. Not, if
    /// they are asynchronous and the server does not deduplicate these.
    pub(crate) fn deduplicates(&self) -> bool {
        !self.async_insert || self.joins_views_and_async_inserts.load(Ordering::Relaxed)
    }

    /// Whether the table is known to drop rows that are sent again.
    pub(crate) fn is_known_to_remember_tokens(&self) -> bool {
        self.deduplicates() && self.facts.is_known_to_remember_tokens()
    }

    /// Number of accepted inserts of all batches.
    pub(crate) fn inserts(&self) -> u64 {
        self.inserts.load(Ordering::Relaxed)
    }

    /// Describes the table again and adapts the statement.
    pub(crate) async fn refresh(&self, host: usize) -> Result<(), ClickHouseError> {
        let described =
            startup::describe_once(self.hosts.endpoint(host), &self.name, self.async_insert).await?;
        let statement = schema_change::statement(&self.name, &self.table.schema, &described)?;
        let mut current = self.statement.write().unwrap_or_else(PoisonError::into_inner);
        if **current != *statement {
            telemetry::schema_refreshed(&self.name, &statement);
            *current = statement.into();
        }
        Ok(())
    }

    /// The statement of the next insert at `host`. While the server converts values, no error of an
    /// insert shows that a column was altered: the header fits `input(…)`, and values that the new
    /// type cannot hold are changed. So the table is described before each such insert. That costs
    /// it one more request; the plain statement costs none. Only an ALTER between that request and
    /// the insert goes unnoticed.
    ///
    /// # Errors
    /// [`ClickHouseError::Schema`], if the table cannot hold every value any more. The error of the
    /// request. Nothing is inserted.
    pub(crate) async fn checked_statement(&self, host: usize) -> Result<Arc<str>, ClickHouseError> {
        if *self.statement() != *self.plain_statement {
            self.refresh(host).await?;
        }
        Ok(self.statement())
    }

    /// The current statement.
    pub(crate) fn statement(&self) -> Arc<str> {
        Arc::clone(&self.statement.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts the rows of a completed batch.
    pub(crate) fn batch_completed(&self, rows: u64, rejected: u64) {
        self.tally().add(rows, rejected);
    }

    /// The limit that a batch with `rejected` of `rows` rows exceeds.
    pub(crate) fn exceeds_limits(&self, rows: u64, rejected: u64) -> Option<String> {
        self.tally().exceeds(self.limits, rows, rejected)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
