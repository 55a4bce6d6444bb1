//! A frozen batch: the same rows under the same token until the server has them, or has refused them one by one.
//!
//! Invariants:
//! 1. The whole batch is one insert, always of the same bytes, until the server refuses rows of it. From then on parts are
//!    inserted, each under a token of its own that its rows alone decide ([`search`](super::search)).
//! 2. Rows are taken apart after a definite refusal only: never after a time-out, a broken connection or a view's error.
//! 3. What is in stays in: parts that were acknowledged are not sent again by a later attempt.
//!
//! A planned block of exactly-once mode goes another way: [`block`](super::block).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use kmr_core::{Attempt, BoxError, CodedError, Delivered, Delivery, DeliveryError, Fingerprint, RejectedRow};

use super::answer::Outcome;
use super::block::{Looking, NotIn};
use super::by_partition::Sorted;
use super::code::ErrorClass;
use super::config::SchemaChange;
use super::content::Content;
use super::destination::Destination;
use super::error::ClickHouseError;
use super::exactly_once::Exact;
use super::hosts::Blame;
use super::refusal::Origin;
use super::search::{Fault, Part, Search, Step};
use super::{by_partition, limits, refusal, telemetry};

/// An error that may pass counts as this part's own after so many answers of the same code in a row …
const OWN_AFTER: u32 = 5;
/// … if so many other inserts went in meanwhile.
const OTHERS_PASSED: u64 = 2;

/// What the server acknowledged: the output of a [`ClickHouseWriter`](super::ClickHouseWriter) stage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InsertReceipt {
    /// Database and table, quoted.
    pub table: Arc<str>,
    /// Rows of the batch that are in the table: all but the refused ones.
    pub rows: u64,
    /// Rows that the server refused; their records go to `reduce_err`.
    pub rejected: u64,
    /// Inserts that were tried for the batch, those that were refused or lost included: 1 for a batch that went in at once. In
    /// exactly-once mode also those that only looked for refused rows.
    pub inserts: u32,
    /// Rows by the server's own count; more than `rows` where views write too. `None` if a proxy took the summary out.
    pub written_rows: Option<u64>,
    /// Size of the rows in RowBinary, bytes.
    pub bytes: u64,
    /// Size of the acknowledged requests' bodies as sent, bytes.
    pub sent_bytes: u64,
    /// Attempts that it took, from 1.
    pub attempts: u32,
    /// How long the last attempt took.
    pub took: Duration,
    /// The id under which `system.query_log` knows the insert; of a batch that was taken apart, the last of its inserts.
    pub query_id: Option<String>,
}

/// A closed batch of one writer.
pub(crate) struct FrozenBatch {
    pub(crate) destination: Arc<Destination>,
    /// What the tokens of all its inserts begin with.
    token: String,
    pub(crate) rows: u64,
    bytes: u64,
    pub(crate) content: Content,
    /// In place of it, once the batch was refused for too many table partitions.
    sorted: OnceLock<Sorted>,
    /// Exactly-once mode: what a planned block is known by, and what its tables remember.
    pub(crate) exact: Option<Exact>,
    progress: Mutex<Progress>,
}

/// What is known of a batch. Survives an attempt that is dropped.
pub(crate) struct Progress {
    search: Search,
    rejected: Vec<RejectedRow>,
    /// Exactly-once mode: which rows of a block are refused.
    pub(crate) looking: Option<Looking>,
    pub(crate) inserts: u32,
    sent_bytes: u64,
    written_rows: Option<u64>,
    query_id: Option<String>,
    /// The insert under way. Still there at the next one, it was dropped without an answer.
    trial: Option<Trial>,
    /// Where the next part has to go: it may be there already.
    prefer: Option<usize>,
    /// Whether the outcome of an insert is not known.
    pub(crate) in_doubt: bool,
    refreshed: bool,
    stubborn: Option<Stubborn>,
    /// A code that has been proved to be this batch's own.
    own_code: Option<u32>,
}

/// An insert at a host.
#[derive(Clone, Copy, Debug)]
struct Trial {
    host: usize,
    /// Whether it was sent there because it may be there.
    again: bool,
}

/// An error that the part that is next has met again and again.
#[derive(Clone, Copy, Debug)]
struct Stubborn {
    code: u32,
    times: u32,
    /// Inserts of the writer that had gone in when it was met first.
    inserts: u64,
}

impl FrozenBatch {
    /// A batch that nothing has been inserted of. Every insert's token begins with `token`.
    pub(crate) fn new(destination: Arc<Destination>, token: String, bytes: u64, content: Content) -> Self {
        let progress = Mutex::new(Progress::new(content.rows()));
        let rows = content.rows() as u64;
        Self { destination, token, rows, bytes, content, sorted: OnceLock::new(), exact: None, progress }
    }

    /// The same in exactly-once mode.
    pub(crate) fn exact(mut self, exact: Option<Exact>) -> Self {
        self.exact = exact;
        self
    }

    /// Inserts part after part until every row has ended.
    async fn insert_all(&self) -> Result<(), ClickHouseError> {
        let mut unreached = 0;
        while let Some((part, trial)) = self.next_trial() {
            let body = self.content().part(&part).await?;
            let sent_bytes: usize = body.iter().map(Bytes::len).sum();
            let token = format!("{}{}", self.token, part.suffix(self.content.rows()));
            let statement = self.destination.statement();
            self.progress().sends(trial);
            let rows = part.len() as u64;
            let answer = self.destination.insert(trial.host, &statement, (&token, rows), body).await;
            let error = match answer {
                Ok(outcome) => {
                    self.progress().accepted(outcome, sent_bytes);
                    continue;
                }
                Err(error) => error,
            };
            let blame = Blame::of(&error);
            self.progress().answered(blame);
            if blame == Blame::Away {
                unreached += 1;
                if unreached < self.destination.hosts.len() {
                    continue; // it is nowhere yet: another host may be there
                }
            }
            self.failed(&part, trial.host, &statement, error).await?;
        }
        Ok(())
    }

    /// The rows in the order in which they are inserted now.
    fn content(&self) -> &Content {
        self.sorted.get().map_or(&self.content, |sorted| &sorted.content)
    }

    /// The place in the batch of a row of [`content`](Self::content).
    fn place(&self, row: usize) -> usize {
        self.sorted.get().and_then(|sorted| sorted.order.get(row)).copied().unwrap_or(row)
    }

    /// Before the first piece of a batch with too many table partitions is cut off: puts together what goes into the same ones.
    async fn sort(&self, host: usize) -> Result<(), ClickHouseError> {
        if self.sorted.get().is_some() || self.progress().search.has_narrowed() {
            return Ok(());
        }
        if let Some(sorted) = by_partition::sorted(&self.destination, host, &self.content).await? {
            // Attempts do not overlap, so nobody else has set it.
            let _ = self.sorted.set(sorted);
        }
        Ok(())
    }

    fn next_trial(&self) -> Option<(Part, Trial)> {
        let mut progress = self.progress();
        if let Some(dropped) = progress.trial.take() {
            self.destination.hosts.note(dropped.host, Blame::Unknown);
            progress.unknown(dropped);
        }
        let part = progress.search.next()?;
        let host = self.destination.hosts.pick(progress.prefer);
        Some((part, Trial { host, again: progress.prefer.is_some() }))
    }

    /// Decides whether something else can be tried at once; what comes back as an error is for the framework.
    async fn failed(
        &self,
        part: &Part,
        host: usize,
        statement: &str,
        error: ClickHouseError,
    ) -> Result<(), ClickHouseError> {
        if error.class() == Some(ErrorClass::Schema) && !self.progress().refreshed {
            let another = match self.destination.refresh(host, statement).await {
                Err(ClickHouseError::Schema { table, problem })
                    if self.destination.schema_change == SchemaChange::DeadLetter =>
                {
                    return self.refused_whole(&table, &problem);
                }
                refreshed => refreshed?,
            };
            self.progress().refreshed = true;
            // One more try also where nothing has changed: it may have been changed back in between. Not if the rows are in.
            return if another || !is_of_view(&error) { Ok(()) } else { Err(error) };
        }
        let fault = match fault(&error) {
            Some(fault) => Some(fault),
            None => self.progress().own_fault(&error, part.len(), self.destination.inserts()),
        };
        if error.class() == Some(ErrorClass::TooManyPartitions) {
            self.sort(host).await?;
        }
        match fault {
            Some(fault) => self.refused(fault, error),
            None => Err(error),
        }
    }

    /// The server refused the part, and nothing of it is in.
    fn refused(&self, fault: Fault, error: ClickHouseError) -> Result<(), ClickHouseError> {
        let mut progress = self.progress();
        if !progress.search.has_narrowed() {
            telemetry::search_started(&self.destination.name, self.rows, progress.in_doubt, &error);
        }
        let row = match progress.search.refused(fault) {
            Step::Goes => return Ok(()),
            Step::Stuck => return Err(error),
            Step::Refused(row) => row,
        };
        let refused = progress.search.refused_rows() as u64;
        if let Some(what) = self.destination.refuses_too_much(self.rows, refused) {
            return Err(limits::too_many(&self.destination.name, what, error));
        }
        progress.rejected.push(RejectedRow::new(self.place(row), row_error(error)));
        Ok(())
    }

    /// The table has no place for the rows of the part any more.
    fn refused_whole(&self, table: &str, problem: &str) -> Result<(), ClickHouseError> {
        let error = || ClickHouseError::Schema { table: table.to_owned(), problem: problem.to_owned() };
        let mut progress = self.progress();
        let rows = progress.search.refused_whole();
        let refused = progress.search.refused_rows() as u64;
        if let Some(what) = self.destination.refuses_too_much(self.rows, refused) {
            return Err(limits::too_many(&self.destination.name, what, error()));
        }
        let rejected = |row| RejectedRow::new(self.place(row), error());
        progress.rejected.extend(rows.into_iter().map(rejected));
        Ok(())
    }

    fn delivered(&self, attempt: &Attempt, took: Duration) -> Delivered<InsertReceipt> {
        let mut progress = self.progress();
        let rejected = std::mem::take(&mut progress.rejected);
        let without = attempt.block.as_ref().map_or(0, |block| block.without.len());
        let refused = (rejected.len() + without) as u64;
        self.destination.ended(self.rows, refused);
        let table = Arc::clone(&self.destination.name);
        telemetry::inserted(&table, self.rows - refused, progress.sent_bytes, attempt.number, took);
        if progress.search.has_narrowed() || refused > 0 {
            telemetry::search_ended(&table, self.rows, refused, progress.inserts);
        }
        let receipt = InsertReceipt {
            table,
            rows: self.rows - refused,
            rejected: refused,
            inserts: progress.inserts,
            written_rows: progress.written_rows,
            bytes: self.bytes,
            sent_bytes: progress.sent_bytes,
            attempts: attempt.number,
            took,
            query_id: progress.query_id.clone(),
        };
        Delivered::new(receipt).with_rejected(rejected)
    }

    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn new(rows: usize) -> Self {
        Self {
            search: Search::new(rows),
            rejected: Vec::new(),
            looking: None,
            inserts: 0,
            sent_bytes: 0,
            written_rows: Some(0),
            query_id: None,
            trial: None,
            prefer: None,
            in_doubt: false,
            refreshed: false,
            stubborn: None,
            own_code: None,
        }
    }

    fn sends(&mut self, trial: Trial) {
        self.trial = Some(trial);
        self.inserts += 1;
    }

    pub(crate) fn accepted(&mut self, outcome: Outcome, sent_bytes: usize) {
        self.answered(Blame::None);
        self.search.accepted();
        self.stubborn = None;
        self.sent_bytes += sent_bytes as u64;
        self.written_rows = self.written_rows.zip(outcome.written_rows).map(|(before, these)| before + these);
        self.query_id = outcome.query_id.or(self.query_id.take());
    }

    fn answered(&mut self, blame: Blame) {
        match (self.trial.take(), blame) {
            (Some(trial), Blame::Unknown) => self.unknown(trial),
            _ => self.prefer = None,
        }
    }

    /// The rows may be at that host: they go there once more before they go to another.
    fn unknown(&mut self, trial: Trial) {
        self.in_doubt = true;
        self.prefer = (!trial.again).then_some(trial.host);
    }

    /// An error that may pass, but that this part keeps getting while others go in: its rows are at fault.
    fn own_fault(&mut self, error: &ClickHouseError, rows: usize, inserts: u64) -> Option<Fault> {
        let code = error.code().filter(|_| error.class() == Some(ErrorClass::Transient))?;
        if self.in_doubt || is_of_view(error) {
            return None; // the rows may be in: only the same bytes under the same token are sent again
        }
        let before = self.stubborn.filter(|before| before.code == code);
        let mut stubborn = before.unwrap_or(Stubborn { code, times: 0, inserts });
        stubborn.times += 1;
        self.stubborn = Some(stubborn);
        let often = stubborn.times >= OWN_AFTER;
        if often && inserts - stubborn.inserts >= OTHERS_PASSED {
            self.own_code = Some(code);
        }
        let own = self.own_code == Some(code);
        match rows {
            0 | 1 => (own && often).then_some(Fault::Row(None)),
            _ => own.then_some(Fault::Size),
        }
    }
}

/// What an exception says about the rows that it refused; `None` where it is no refusal of rows.
pub(crate) fn fault(error: &ClickHouseError) -> Option<Fault> {
    match error {
        ClickHouseError::Exception { class: ErrorClass::Data, message, .. } => {
            Some(Fault::Row(refusal::row(message)))
        }
        ClickHouseError::Exception { class: ErrorClass::TooManyPartitions, .. } => Some(Fault::Size),
        _ => None,
    }
}

/// Whether a dependent view is what failed: the rows are in the table itself then.
fn is_of_view(error: &ClickHouseError) -> bool {
    match error {
        ClickHouseError::Exception { code, message, .. } => refusal::origin(*code, message) == Origin::View,
        _ => false,
    }
}

pub(crate) fn row_error(error: ClickHouseError) -> BoxError {
    let column = match &error {
        ClickHouseError::Exception { message, .. } => refusal::column(message).map(str::to_owned),
        _ => None,
    };
    let code = error.code();
    let refused = ClickHouseError::Refused { column, source: Box::new(error) };
    match code {
        Some(code) => CodedError::new(code.to_string(), refused).into(),
        None => refused.into(),
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
        self.exact.as_ref().map(|exact| Fingerprint::new(self.rows, self.bytes, exact.hash))
    }

    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<InsertReceipt>, DeliveryError> {
        let started = Instant::now();
        let result = match &attempt.block {
            Some(block) => self.insert_block(block).await,
            None => self.insert_all().await.map_err(NotIn::Failed),
        };
        if let Err(NotIn::Failed(error)) = &result {
            telemetry::refused(&self.destination.name, self.rows, attempt.number, error);
        }
        result?;
        Ok(self.delivered(&attempt, started.elapsed()))
    }
}
