//! Inserts a planned block: one insert under the plan's token, without the rows that the table
//! rejects.
//!
//! Invariants (E4):
//! 1. Every insert of the block has the block's token, and holds all of its rows except
//!    [`Block::excluded_rows`]. The server stores the first such insert and drops the others,
//!    whatever process sent them.
//! 2. Probes find the rejected rows, and store nothing. So the outcome of earlier attempts does not
//!    matter.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kmr_core::{Block, DeliveryError, RejectedRow};

use crate::clickhouse::batch::bisect::{Bisection, Part, Rejection, Step};
use crate::clickhouse::batch::destination::{Destination, Insert};
use crate::clickhouse::batch::encoded_batch::EncodedBatch;
use crate::clickhouse::batch::limits;
use crate::clickhouse::batch::progress::SharedProgress;
use crate::clickhouse::batch::rejection::{rejection, row_error};
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::error_code::ErrorClass;
use crate::clickhouse::exactly_once::doubt::doubt;
use crate::clickhouse::exactly_once::probe::Probe;
use crate::clickhouse::exactly_once::windows::{Window, windows as windows_of};
use crate::clickhouse::http::settings::DEDUPLICATE_INSERT_SELECT;
use crate::clickhouse::http::status::CONTENT_TOO_LARGE;
use crate::clickhouse::telemetry;
use crate::errors::delivery_error;

/// The insert of a planned block, and what it needs.
pub(crate) struct BlockInsert<'b> {
    pub(crate) block: &'b Block,
    /// The number of this attempt, from 1.
    pub(crate) attempt: u32,
    pub(crate) destination: &'b Destination,
    pub(crate) encoded: &'b EncodedBatch,
    pub(crate) windows: Option<&'b [Window]>,
    pub(crate) progress: &'b SharedProgress,
    pub(crate) bisection: &'b SharedBisection,
}

/// The bisection of a block, shared by its attempts. It survives an attempt that is dropped.
#[derive(Default)]
pub(crate) struct SharedBisection(Mutex<Option<BlockBisection>>);

/// The rows of a block that the table rejects, as far as they are known.
struct BlockBisection {
    /// The block's excluded rows when the bisection started.
    excluded: Vec<usize>,
    bisection: Bisection,
    rejected: Vec<RejectedRow>,
}

/// Why a block is not stored.
pub(crate) enum BlockError {
    /// The table will never accept these rows. Nothing was inserted.
    Rejected(Vec<RejectedRow>),
    Failed(ClickHouseError),
}

impl From<ClickHouseError> for BlockError {
    fn from(error: ClickHouseError) -> Self {
        Self::Failed(error)
    }
}

impl From<BlockError> for DeliveryError {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Rejected(rows) => DeliveryError::rejected(rows),
            BlockError::Failed(error) => {
                delivery_error(error.is_retryable(), error.code().map(|code| code.to_string()), error)
            }
        }
    }
}

impl SharedBisection {
    fn lock(&self) -> MutexGuard<'_, Option<BlockBisection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, change: impl FnOnce(&mut BlockBisection) -> T) -> Option<T> {
        self.lock().as_mut().map(change)
    }
}

impl BlockInsert<'_> {
    /// Inserts the block, or finds the rows that the table rejects.
    pub(crate) async fn insert(&self) -> Result<(), BlockError> {
        let part = Part { rows: 0..self.encoded.rows(), excluded: self.block.excluded_rows.to_vec() };
        if part.len() == 0 {
            return Ok(()); // all of its rows are dead letters
        }
        self.check_windows().await?;
        let mut error = match self.insert_once(&part).await? {
            None => return Ok(()),
            Some(error) => error,
        };
        if self.may_refresh(&error) {
            self.destination.refresh(0).await?;
            self.progress.lock().refreshed = true;
            error = match self.insert_once(&part).await? {
                None => return Ok(()),
                Some(error) => error,
            };
        }
        match rejection(&error) {
            Some(Rejection::Row(named_row)) => self.bisect(&part, named_row, error).await,
            _ => Err(error.into()),
        }
    }

    /// Makes one insert. Returns the error of the server, if it does not accept the rows.
    async fn insert_once(&self, part: &Part) -> Result<Option<ClickHouseError>, ClickHouseError> {
        let body = self.encoded.part(part).await?;
        let sent_bytes = body.iter().map(bytes::Bytes::len).sum();
        self.destination.wait_for_throttle().await;
        let (statement, rows) = (self.destination.checked_statement(0).await?, part.len() as u64);
        let was_in_doubt = {
            let mut progress = self.progress.lock();
            progress.inserts += 1;
            // If the attempt is dropped before the response, the block stays in doubt.
            std::mem::replace(&mut progress.in_doubt, true)
        };
        let insert = Insert { statement: &statement, token: &self.block.token, rows, is_async: false, body };
        let result = self.destination.insert(0, insert).await;
        let is_unknown = result.as_ref().is_err_and(|error| error.is_retryable() && error.may_be_stored());
        let mut progress = self.progress.lock();
        progress.in_doubt = was_in_doubt || is_unknown;
        Ok(match result {
            Ok(outcome) => {
                progress.accepted(outcome, sent_bytes);
                None
            }
            Err(error) => Some(planned(error)),
        })
    }

    /// Whether a column has another type now, and the server can convert the block's rows. Their
    /// insert then is an INSERT SELECT with the same rows under the same token. A server that knows
    /// the setting drops it if it has stored the block before, and stores it as one block (tested
    /// with ClickHouse 26.7).
    fn may_refresh(&self, error: &ClickHouseError) -> bool {
        error.class() == Some(ErrorClass::Schema)
            && !self.progress.lock().refreshed
            && self.destination.hosts.endpoint(0).pins.contains(DEDUPLICATE_INSERT_SELECT)
    }

    /// E6: fails if the block's token may have left the deduplication window of a table.
    ///
    /// A view that was added since the start can write to a table without a window, and the window
    /// of a table can be removed. So the windows are read again for a block that may have been
    /// inserted before. Its first insert needs none. A window that is set again is empty, so a
    /// missing one is a doubt about the block, and not only about the table.
    async fn check_windows(&self) -> Result<(), ClickHouseError> {
        let Some(windows) = self.windows else { return Ok(()) };
        let (table, endpoint) = (&*self.destination.name, self.destination.hosts.endpoint(0));
        let is_first = self.attempt == 1 && !self.block.is_replay && !self.progress.lock().in_doubt;
        let present = match is_first {
            true => None,
            false => match windows_of(endpoint, table).await {
                Ok(present) => Some(present),
                Err(ClickHouseError::Schema { problem, .. }) => return Err(self.in_doubt(problem)),
                Err(error) => return Err(error),
            },
        };
        let windows = present.as_deref().unwrap_or(windows);
        match doubt(endpoint, table, windows, self.block).await? {
            None => Ok(()),
            Some(why) => Err(self.in_doubt(why)),
        }
    }

    fn in_doubt(&self, why: String) -> ClickHouseError {
        let (table, token) = (self.destination.name.to_string(), self.block.token.to_string());
        ClickHouseError::InDoubt { table, token, why }
    }

    /// Finds the rows for which the table rejected the part. `named_row` is the row in the server's
    /// error, if it names one.
    async fn bisect(
        &self,
        part: &Part,
        named_row: Option<usize>,
        error: ClickHouseError,
    ) -> Result<(), BlockError> {
        self.start_bisection(part, named_row, &error);
        let probe = Probe::open(self.destination).await?;
        while let Some(part) = self.bisection.with(|state| state.bisection.next()).flatten() {
            let body = self.encoded.part(&part).await?;
            self.progress.lock().inserts += 1;
            let error = match probe.try_rows(part.len() as u64, body).await {
                Ok(()) => {
                    self.bisection.with(|state| state.bisection.accepted());
                    continue;
                }
                Err(error) => planned(error),
            };
            let Some(rejection) = rejection(&error) else { return Err(error.into()) };
            match self.bisection.with(|state| state.bisection.rejected(rejection)) {
                Some(Step::Continue) | None => {}
                Some(Step::Stuck) => return Err(error.into()),
                Some(Step::Rejected(row)) => self.row_rejected(row, error)?,
            }
        }
        let rejected = self.bisection.lock().take().map_or_else(Vec::new, |state| state.rejected);
        if rejected.is_empty() {
            // The table rejects only the rows together, or for a reason outside of their columns.
            // No single row can be excluded for it.
            telemetry::no_row_found(&self.destination.name, self.encoded.rows() as u64);
            return Err(error.into());
        }
        Err(BlockError::Rejected(rejected))
    }

    /// Continues the bisection of the last attempt if it is about the same rows. Otherwise starts a
    /// new one.
    fn start_bisection(&self, part: &Part, named_row: Option<usize>, error: &ClickHouseError) {
        let mut state = self.bisection.lock();
        if state.as_ref().is_some_and(|state| state.excluded == part.excluded) {
            return;
        }
        let (rows, in_doubt) = (self.encoded.rows() as u64, self.progress.lock().in_doubt);
        telemetry::bisection_started(&self.destination.name, rows, in_doubt, error);
        let mut bisection = Bisection::excluding(part.rows.len(), &part.excluded);
        if part.len() > 1 {
            bisection.next();
            bisection.rejected(Rejection::Row(named_row));
        }
        *state = Some(BlockBisection { excluded: part.excluded.clone(), bisection, rejected: Vec::new() });
    }

    /// Records a row that the table rejected on its own.
    fn row_rejected(&self, row: usize, error: ClickHouseError) -> Result<(), ClickHouseError> {
        let mut state = self.bisection.lock();
        let Some(state) = state.as_mut() else { return Ok(()) };
        let rejected = state.excluded.len() + state.rejected.len() + 1;
        let rows = self.encoded.rows() as u64;
        if let Some(exceeded) = self.destination.exceeds_limits(rows, rejected as u64) {
            return Err(limits::too_many(&self.destination.name, exceeded, error));
        }
        state.rejected.push(RejectedRow::new(row, row_error(error)));
        Ok(())
    }
}

/// The error with the remedy that helps a planned block, whose rows are fixed.
fn planned(mut error: ClickHouseError) -> ClickHouseError {
    if let ClickHouseError::Status { status: CONTENT_TOO_LARGE, remedy, .. } = &mut error {
        *remedy = "it limits the size of a body: raise that limit (nginx: client_max_body_size), because the rows of this \
                   block are already planned; a lower .max_bytes() makes later blocks smaller";
    }
    error
}
