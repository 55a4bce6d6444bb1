//! A frozen batch: the same rows under the same token until the server has stored them, or has
//! rejected them one by one.
//!
//! Invariants:
//! 1. The whole batch is one insert with the same bytes, until the server rejects rows of it. From
//!    then on parts are inserted. Each part has its own token, which depends only on its rows
//!    ([`bisect`](super::bisect)).
//! 2. A batch is split only after a definite rejection: never after a timeout, a broken connection,
//!    the error of a view, or an error that may come after a part of the write.
//! 3. A part that was acknowledged is not sent again by a later attempt.
//! 4. The rejection of an asynchronous insert decides nothing about a row: the server may have
//!    combined the insert with others. The part is sent again as a synchronous insert.
//!
//! A planned block of exactly-once mode is delivered by [`BlockInsert`].

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use kmr_core::{Attempt, Delivered, Delivery, DeliveryError, Fingerprint, RejectedRow};

use crate::clickhouse::batch::bisect::{Part, Rejection, Step};
use crate::clickhouse::batch::by_partition::{self, SortedBatch};
use crate::clickhouse::batch::destination::{Destination, Insert};
use crate::clickhouse::batch::encoded_batch::EncodedBatch;
use crate::clickhouse::batch::limits;
use crate::clickhouse::batch::progress::{InsertAttempt, SharedProgress};
use crate::clickhouse::batch::receipt::InsertReceipt;
use crate::clickhouse::batch::rejection::{rejection, row_error, size_rejection};
use crate::clickhouse::batch::repetition::Risk;
use crate::clickhouse::config::SchemaChange;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::error_code::ErrorClass;
use crate::clickhouse::exactly_once::PlannedRows;
use crate::clickhouse::exactly_once::block::{BlockError, BlockInsert, SharedBisection};
use crate::clickhouse::http::hosts::HostFault;
use crate::clickhouse::telemetry;

/// A closed batch of one writer.
pub(crate) struct FrozenBatch {
    destination: Arc<Destination>,
    /// The prefix of the tokens of all its inserts.
    token: String,
    rows: u64,
    bytes: u64,
    encoded: EncodedBatch,
    /// Replaces `encoded` after a rejection for too many table partitions.
    sorted: OnceLock<SortedBatch>,
    /// Only in exactly-once mode.
    planned: Option<PlannedRows>,
    progress: SharedProgress,
    /// The bisection of a planned block. Only in exactly-once mode.
    block_bisection: SharedBisection,
}

impl FrozenBatch {
    /// A batch of which nothing is inserted yet. The token of every insert starts with `token`.
    pub(crate) fn new(
        destination: Arc<Destination>,
        token: String,
        encoded: EncodedBatch,
        planned: Option<PlannedRows>,
    ) -> Self {
        Self {
            destination,
            token,
            rows: encoded.rows() as u64,
            bytes: encoded.bytes() as u64,
            progress: SharedProgress::new(encoded.rows()),
            encoded,
            sorted: OnceLock::new(),
            planned,
            block_bisection: SharedBisection::default(),
        }
    }

    /// Inserts part after part until every row is settled.
    async fn insert_all(&self) -> Result<(), ClickHouseError> {
        let mut unavailable_hosts = 0;
        while let Some((part, attempt)) = self.next_insert() {
            let body = self.current_order().part(&part).await?;
            let sent_bytes: usize = body.iter().map(Bytes::len).sum();
            self.destination.wait_for_throttle().await;
            let statement = self.destination.checked_statement(attempt.host);
            let statement = match self.describing(attempt.host, statement).await {
                Ok(statement) => statement,
                Err(error) => {
                    self.not_sent(attempt.host, error, &mut unavailable_hosts)?;
                    continue;
                }
            };
            let token = format!("{}{}", self.token, part.suffix(self.encoded.rows()));
            self.progress.lock().started(attempt);
            let (rows, is_async) = (part.len() as u64, self.is_async());
            let insert = Insert { statement: &statement, token: &token, rows, is_async, body };
            let error = match self.destination.insert(attempt.host, insert).await {
                Ok(outcome) => {
                    self.progress.lock().accepted(outcome, sent_bytes);
                    continue;
                }
                Err(error) => error,
            };
            let endpoint = self.destination.hosts.endpoint(attempt.host);
            let error = self.destination.facts.apply(endpoint, &self.destination.name, error).await;
            self.progress.lock().failed(&error);
            if self.may_use_another_host(&error, &mut unavailable_hosts) {
                continue;
            }
            self.recover(&part, attempt.host, error).await?;
        }
        Ok(())
    }

    /// Whether the error leaves the part to another host: no host has stored it, and one may be
    /// available.
    fn may_use_another_host(&self, error: &ClickHouseError, unavailable: &mut usize) -> bool {
        let is_unavailable = HostFault::of(error) == HostFault::Unavailable;
        *unavailable += usize::from(is_unavailable);
        is_unavailable && *unavailable < self.destination.hosts.len()
    }

    /// Awaits a description of the table by `host`. If the attempt is dropped meanwhile, the next
    /// one leaves a host that does not respond.
    async fn describing<T>(&self, host: usize, description: impl Future<Output = T>) -> T {
        self.progress.lock().describing(host);
        let result = description.await;
        self.progress.lock().described();
        result
    }

    /// Handles an error before an insert of the next part was sent. Returns `Ok` if another insert
    /// can follow at once.
    fn not_sent(
        &self,
        host: usize,
        error: ClickHouseError,
        unavailable: &mut usize,
    ) -> Result<(), ClickHouseError> {
        self.progress.lock().not_sent();
        self.destination.hosts.record(host, HostFault::of(&error));
        match self.may_use_another_host(&error, unavailable) {
            true => Ok(()),
            false => self.table_changed(error),
        }
    }

    /// Whether the server may combine the next insert with those of other batches.
    fn is_async(&self) -> bool {
        self.destination.async_insert && !self.progress.lock().synchronous
    }

    /// The rows in the order of the next insert.
    fn current_order(&self) -> &EncodedBatch {
        self.sorted.get().map_or(&self.encoded, |sorted| &sorted.encoded)
    }

    /// The index in the batch of a row of [`current_order`](Self::current_order).
    fn original_index(&self, row: usize) -> usize {
        self.sorted.get().and_then(|sorted| sorted.order.get(row)).copied().unwrap_or(row)
    }

    /// Groups the rows by table partition. Runs before a batch with too many table partitions is
    /// split.
    async fn sort(&self, host: usize) -> Result<(), ClickHouseError> {
        if self.sorted.get().is_some() || self.progress.lock().bisection.has_split() {
            return Ok(());
        }
        if let Some(sorted) = by_partition::sort(&self.destination, host, &self.encoded).await? {
            // Attempts do not overlap, so `sorted` is not set yet.
            let _ = self.sorted.set(sorted);
        }
        Ok(())
    }

    fn next_insert(&self) -> Option<(Part, InsertAttempt)> {
        let mut progress = self.progress.lock();
        if let Some(dropped) = progress.take_dropped() {
            self.destination.hosts.record(dropped.host, HostFault::Unknown);
            let remembers_tokens = self.destination.is_known_to_remember_tokens();
            progress.repetition.dropped(&self.destination.name, self.rows, remembers_tokens);
        }
        if let Some(host) = progress.take_dropped_description() {
            self.destination.hosts.record(host, HostFault::Unknown);
        }
        let part = progress.bisection.next()?;
        let preferred = progress.preferred_host();
        let host = self.destination.hosts.pick(preferred);
        Some((part, InsertAttempt { host, is_repetition: preferred.is_some() }))
    }

    /// Handles a failed insert. Returns `Ok` if another insert can follow at once. Otherwise the
    /// attempt fails with the returned error.
    async fn recover(&self, part: &Part, host: usize, error: ClickHouseError) -> Result<(), ClickHouseError> {
        if error.class() == Some(ErrorClass::Schema) && !self.progress.lock().refreshed {
            return self.refresh_schema(host).await;
        }
        let rejection = rejection(&error).or_else(|| {
            let mut progress = self.progress.lock();
            // Other tokens would store again what an earlier insert of the part may have stored.
            let by_size = size_rejection(&error, part.len()).filter(|_| !progress.in_doubt);
            by_size.or_else(|| progress.own_rejection(&error, part.len(), self.destination.inserts()))
        });
        if rejection.is_some() && self.is_async() {
            self.progress.lock().synchronous = true;
            return Ok(()); // the same part, alone
        }
        if error.class() == Some(ErrorClass::TooManyPartitions) {
            self.sort(host).await?;
        }
        let result = match rejection {
            Some(rejection) => self.part_rejected(rejection, error),
            None => Err(error),
        };
        match result {
            Ok(()) => Ok(()),
            Err(error) => Err(self.limited(error).await),
        }
    }

    /// Describes the table again after a schema error.
    async fn refresh_schema(&self, host: usize) -> Result<(), ClickHouseError> {
        if let Err(error) = self.describing(host, self.destination.refresh(host)).await {
            return self.table_changed(error);
        }
        self.progress.lock().refreshed = true;
        // Insert once more even with the same statement: the table may have been changed back
        // meanwhile.
        Ok(())
    }

    /// Rejects the rows of the part if the table can no longer store them and the policy allows it.
    /// Otherwise returns the error.
    fn table_changed(&self, error: ClickHouseError) -> Result<(), ClickHouseError> {
        match error {
            ClickHouseError::Schema { table, problem }
                if self.destination.schema_change == SchemaChange::DeadLetter =>
            {
                self.reject_part(&table, &problem)
            }
            error => Err(error),
        }
    }

    /// Continues the bisection after the server rejected the part and stored none of it.
    fn part_rejected(&self, rejection: Rejection, error: ClickHouseError) -> Result<(), ClickHouseError> {
        let mut progress = self.progress.lock();
        if !progress.bisection.has_split() {
            let (name, in_doubt) = (&self.destination.name, progress.in_doubt || error.may_be_stored());
            match rejection {
                Rejection::Row(_) => telemetry::bisection_started(name, self.rows, in_doubt, &error),
                Rejection::Size => telemetry::split_by_size(name, self.rows, in_doubt, &error),
            }
        }
        let row = match progress.bisection.rejected(rejection) {
            Step::Continue => return Ok(()),
            Step::Stuck => return Err(error),
            Step::Rejected(row) => row,
        };
        let rejected = progress.bisection.rejected_rows() as u64;
        if let Some(exceeded) = self.destination.exceeds_limits(self.rows, rejected) {
            return Err(limits::too_many(&self.destination.name, exceeded, error));
        }
        progress.rejected.push(RejectedRow::new(self.original_index(row), row_error(error)));
        Ok(())
    }

    /// Rejects all rows of the part, because the table can no longer store them.
    fn reject_part(&self, table: &str, problem: &str) -> Result<(), ClickHouseError> {
        let error = || ClickHouseError::Schema { table: table.to_owned(), problem: problem.to_owned() };
        let mut progress = self.progress.lock();
        let rows = progress.bisection.reject_part();
        let rejected = progress.bisection.rejected_rows() as u64;
        if let Some(exceeded) = self.destination.exceeds_limits(self.rows, rejected) {
            return Err(limits::too_many(&self.destination.name, exceeded, error()));
        }
        let rejected = |row| RejectedRow::new(self.original_index(row), error());
        progress.rejected.extend(rows.into_iter().map(rejected));
        Ok(())
    }

    /// The error of an insert that the attempt ends with. Retries that can store rows again are
    /// limited. Errors of other requests, such as a description, store nothing, and are not.
    async fn limited(&self, error: ClickHouseError) -> ClickHouseError {
        let risk = Risk::of(&self.destination, &error).await;
        self.progress.lock().repetition.failed(&self.destination.name, self.rows, risk, error)
    }

    fn delivered(&self, attempt: &Attempt, took: Duration) -> Delivered<InsertReceipt> {
        let mut progress = self.progress.lock();
        let rows = std::mem::take(&mut progress.rejected);
        let excluded = attempt.block.as_ref().map_or(0, |block| block.excluded_rows.len());
        let rejected = (rows.len() + excluded) as u64;
        self.destination.batch_completed(self.rows, rejected);
        let receipt = InsertReceipt {
            table: Arc::clone(&self.destination.name),
            rows: self.rows - rejected,
            rejected,
            inserts: progress.inserts,
            written_rows: progress.written_rows,
            bytes: self.bytes,
            sent_bytes: progress.sent_bytes,
            attempts: attempt.number,
            took,
            query_id: progress.query_id.clone(),
        };
        telemetry::inserted(&receipt);
        if progress.bisection.has_split() || rejected > 0 {
            telemetry::bisection_completed(&receipt.table, self.rows, rejected, progress.inserts);
        }
        Delivered::new(receipt).with_rejected(rows)
    }
}

impl fmt::Debug for FrozenBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrozenBatch")
            .field("rows", &self.rows)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Delivery for FrozenBatch {
    type Output = InsertReceipt;

    fn fingerprint(&self) -> Option<Fingerprint> {
        let planned = self.planned.as_ref()?;
        Some(Fingerprint::new(self.rows, self.bytes, planned.hash))
    }

    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<InsertReceipt>, DeliveryError> {
        let started = Instant::now();
        let result = match &attempt.block {
            Some(block) => {
                let insert = BlockInsert {
                    block,
                    attempt: attempt.number,
                    destination: &self.destination,
                    encoded: &self.encoded,
                    windows: self.planned.as_ref().map(|planned| &*planned.windows),
                    progress: &self.progress,
                    bisection: &self.block_bisection,
                };
                insert.insert().await
            }
            None => self.insert_all().await.map_err(BlockError::Failed),
        };
        if let Err(BlockError::Failed(error)) = &result {
            telemetry::insert_failed(&self.destination.name, self.rows, attempt.number, error);
        }
        result?;
        Ok(self.delivered(&attempt, started.elapsed()))
    }
}
