//! What all batches of one writer share: the hosts, the statement, and what was learned from the answers so far.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;

use crate::clickhouse::batch::limits::{Limits, Tally};
use crate::clickhouse::batch::rows::DescribedTable;
use crate::clickhouse::config::{Compression, Endpoint, SchemaChange};
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::hosts::{Blame, Hosts};
use crate::clickhouse::http::request::post;
use crate::clickhouse::http::response::{Outcome, insert_outcome};
use crate::clickhouse::http::throttle::Pace;
use crate::clickhouse::table::schema_change;
use crate::clickhouse::table::startup;
use crate::clickhouse::telemetry;

/// The server's own default for `max_insert_block_size`: a batch up to here is one block in any case.
const BLOCK_ROWS: usize = 1_048_449;

/// Where the batches of one writer go.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) hosts: Hosts,
    /// As it was described at the start: what rows are encoded for.
    pub(crate) table: Arc<DescribedTable>,
    pub(crate) name: Arc<str>,
    pub(crate) compression: Compression,
    pub(crate) limits: Limits,
    pub(crate) schema_change: SchemaChange,
    pub(crate) pace: Pace,
    block_rows: u64,
    /// How an insert waits for the server; the user's own settings follow behind.
    asynchronous: bool,
    statement: RwLock<Arc<str>>,
    tally: Mutex<Tally>,
    /// Inserts that went in, of all batches.
    inserts: AtomicU64,
}

/// Options of a [`Destination`] that are the same for all its inserts.
pub(crate) struct Terms {
    pub(crate) compression: Compression,
    pub(crate) limits: Limits,
    pub(crate) schema_change: SchemaChange,
    pub(crate) pace: Pace,
    pub(crate) max_records: usize,
    pub(crate) asynchronous: bool,
}

impl Destination {
    pub(crate) fn new(hosts: Hosts, table: Arc<DescribedTable>, terms: Terms) -> Self {
        Self {
            hosts,
            name: table.name.as_str().into(),
            statement: RwLock::new(table.schema.insert.as_str().into()),
            table,
            compression: terms.compression,
            limits: terms.limits,
            schema_change: terms.schema_change,
            pace: terms.pace,
            block_rows: terms.max_records.max(BLOCK_ROWS) as u64,
            asynchronous: terms.asynchronous,
            tally: Mutex::default(),
            inserts: AtomicU64::new(0),
        }
    }

    /// Path and parameters of one insert. Block sizes are pinned so that it is one block: only a whole block is stored as a
    /// whole and deduplicated as a whole.
    fn target(&self, endpoint: &Endpoint, statement: &str, (token, rows): (&str, u64)) -> String {
        let block_rows = self.block_rows(rows).to_string();
        let mut parameters = vec![
            ("query", statement),
            ("wait_end_of_query", "1"),
            ("async_insert", if self.asynchronous { "1" } else { "0" }),
        ];
        parameters.extend(Self::one_block(&block_rows));
        parameters.extend([
            ("deduplicate_blocks_in_dependent_materialized_views", "1"),
            ("insert_deduplication_token", token),
        ]);
        if self.asynchronous {
            parameters.push(("wait_for_async_insert", "1"));
        }
        parameters.extend(self.reading());
        endpoint.target(&parameters)
    }

    /// What makes an insert one block on the server, of up to `block_rows` rows.
    pub(crate) fn one_block(block_rows: &str) -> [(&'static str, &str); 4] {
        [
            ("max_insert_block_size", block_rows),
            ("min_insert_block_size_rows", block_rows),
            ("min_insert_block_size_bytes", "0"),
            ("input_format_parallel_parsing", "0"),
        ]
    }

    /// How values are read.
    pub(crate) fn reading(&self) -> Option<(&'static str, &'static str)> {
        self.table.schema.json_as_text.then_some(("input_format_binary_read_json_as_string", "1"))
    }

    /// The size to pin for `rows` rows. A planned block ends with a record, which may have more of them than fit.
    pub(crate) fn block_rows(&self, rows: u64) -> u64 {
        self.block_rows.max(rows)
    }

    /// Inserts a body of `rows` rows at one host.
    pub(crate) async fn insert(
        &self,
        host: usize,
        statement: &str,
        (token, rows): (&str, u64),
        body: Vec<Bytes>,
    ) -> Result<Outcome, ClickHouseError> {
        self.pace.pass().await;
        let endpoint = self.hosts.endpoint(host);
        let target = self.target(endpoint, statement, (token, rows));
        let answer = post(endpoint, &target, body, self.compression.content_encoding()).await;
        let outcome = answer.and_then(|answer| insert_outcome(&answer, endpoint, &self.name, rows));
        match &outcome {
            Ok(_) => {
                self.hosts.note(host, Blame::None);
                self.pace.went_through();
                self.inserts.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let rest = self.hosts.note(host, Blame::of(error));
                if let Some(rest) = rest.filter(|_| self.hosts.len() > 1) {
                    telemetry::host_rests(&endpoint.address(), rest);
                }
                if error.class() == Some(crate::clickhouse::ErrorClass::TooManyParts) {
                    telemetry::too_many_parts(&self.name, self.pace.slow_down());
                }
            }
        }
        outcome
    }

    /// Inserts of all batches that went in so far.
    pub(crate) fn inserts(&self) -> u64 {
        self.inserts.load(Ordering::Relaxed)
    }

    /// Describes the table again and changes the statement to what fits it, if anything does. Returns whether that is
    /// another one than the one that was `refused`.
    pub(crate) async fn refresh(&self, host: usize, refused: &str) -> Result<bool, ClickHouseError> {
        let described = startup::describe_once(self.hosts.endpoint(host), &self.name).await?;
        let statement = schema_change::statement(&self.name, &self.table.schema, &described)?;
        let another = statement != refused;
        let mut current = self.statement.write().unwrap_or_else(PoisonError::into_inner);
        if **current != *statement {
            telemetry::schema_refreshed(&self.name, &statement);
            *current = statement.into();
        }
        Ok(another)
    }

    /// The statement in force.
    pub(crate) fn statement(&self) -> Arc<str> {
        Arc::clone(&self.statement.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A batch has ended.
    pub(crate) fn ended(&self, rows: u64, refused: u64) {
        self.tally().add(rows, refused);
    }

    /// Whether more rows are refused than may be, with those of a batch that is under way.
    pub(crate) fn refuses_too_much(&self, rows: u64, refused: u64) -> Option<String> {
        self.tally().exceeds(self.limits, rows, refused)
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
