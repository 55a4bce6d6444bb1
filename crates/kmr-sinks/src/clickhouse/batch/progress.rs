//! What is known about a batch between its inserts. It survives an attempt that is dropped.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kmr_core::RejectedRow;

use crate::clickhouse::batch::bisect::{Bisection, Rejection};
use crate::clickhouse::batch::repetition::Repetition;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::error_code::ErrorClass;
use crate::clickhouse::http::hosts::HostFault;
use crate::clickhouse::http::response::Outcome;

/// A temporary error becomes the part's own after this many responses with the same code in a row …
const OWN_AFTER: u32 = 5;
/// … if this many other inserts were accepted since the first of them.
const OTHERS_ACCEPTED: u64 = 2;

/// The progress of a batch, shared by its attempts.
pub(crate) struct SharedProgress(Mutex<Progress>);

impl SharedProgress {
    pub(crate) fn new(rows: usize) -> Self {
        Self(Mutex::new(Progress::new(rows)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of one batch.
pub(crate) struct Progress {
    pub(crate) bisection: Bisection,
    pub(crate) rejected: Vec<RejectedRow>,
    pub(crate) inserts: u32,
    pub(crate) sent_bytes: u64,
    pub(crate) written_rows: Option<u64>,
    pub(crate) query_id: Option<String>,
    /// The running insert. If it is still set at the next insert, it was dropped without a
    /// response.
    current: Option<InsertAttempt>,
    /// The host that describes the table before the next insert. If it is still set at the next
    /// insert, the attempt was dropped without a response.
    describing: Option<usize>,
    /// The host that may have stored the next part already.
    preferred_host: Option<usize>,
    /// Whether the outcome of an insert is unknown.
    pub(crate) in_doubt: bool,
    /// Whether an asynchronous insert was rejected. The server may have combined it with inserts of
    /// other batches, so the rejection can be about their rows. From then on every insert of this
    /// batch is a synchronous one.
    pub(crate) synchronous: bool,
    /// Whether the table was described again.
    pub(crate) refreshed: bool,
    /// The code of a temporary error that was a part's own. Parts with this code are halved at once
    /// until one of them is a single row.
    own_code: Option<u32>,
    /// Failures that may have stored rows.
    pub(crate) repetition: Repetition,
}

/// An insert at a host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InsertAttempt {
    pub(crate) host: usize,
    /// Whether this host was chosen because it may have stored the rows already.
    pub(crate) is_repetition: bool,
}

impl Progress {
    fn new(rows: usize) -> Self {
        Self {
            bisection: Bisection::new(rows),
            rejected: Vec::new(),
            inserts: 0,
            sent_bytes: 0,
            written_rows: Some(0),
            query_id: None,
            current: None,
            describing: None,
            preferred_host: None,
            in_doubt: false,
            synchronous: false,
            refreshed: false,
            own_code: None,
            repetition: Repetition::default(),
        }
    }

    /// The host that may have stored the next part already.
    pub(crate) fn preferred_host(&self) -> Option<usize> {
        self.preferred_host
    }

    /// Records the start of an insert.
    pub(crate) fn started(&mut self, attempt: InsertAttempt) {
        self.current = Some(attempt);
        self.inserts += 1;
    }

    /// The insert that an earlier attempt started and dropped. Its outcome is unknown.
    pub(crate) fn take_dropped(&mut self) -> Option<InsertAttempt> {
        let dropped = self.current.take()?;
        self.outcome_unknown(dropped);
        Some(dropped)
    }

    /// Records that a host describes the table.
    pub(crate) fn describing(&mut self, host: usize) {
        self.describing = Some(host);
    }

    /// Records the end of a description.
    pub(crate) fn described(&mut self) {
        self.describing = None;
    }

    /// The host whose description an earlier attempt dropped. No insert was sent to it.
    pub(crate) fn take_dropped_description(&mut self) -> Option<usize> {
        let host = self.describing.take()?;
        self.not_sent();
        Some(host)
    }

    /// Records that a host could not get the next part. Like one that gave no response to a
    /// repetition, it does not get the part before another host.
    pub(crate) fn not_sent(&mut self) {
        self.preferred_host = None;
    }

    /// Records an accepted insert of the next part.
    pub(crate) fn accepted(&mut self, outcome: Outcome, sent_bytes: usize) {
        self.completed(HostFault::None);
        self.bisection.accepted();
        self.sent_bytes += sent_bytes as u64;
        self.written_rows = self.written_rows.zip(outcome.written_rows).map(|(before, these)| before + these);
        self.query_id = outcome.query_id.or(self.query_id.take());
    }

    /// Records the end of an insert with an error.
    pub(crate) fn failed(&mut self, error: &ClickHouseError) {
        self.completed(HostFault::of(error));
        self.in_doubt |= error.is_retryable() && error.may_be_stored();
    }

    /// Records the end of an insert.
    fn completed(&mut self, fault: HostFault) {
        match (self.current.take(), fault) {
            (Some(attempt), HostFault::Unknown) => self.outcome_unknown(attempt),
            _ => self.preferred_host = None,
        }
    }

    /// The host may have stored the rows: it gets them once more before another host does.
    fn outcome_unknown(&mut self, attempt: InsertAttempt) {
        self.in_doubt = true;
        self.preferred_host = (!attempt.is_repetition).then_some(attempt.host);
    }

    /// Whether a temporary error is this part's own: the part keeps getting it while other inserts
    /// are accepted. Only if no insert of the part may have stored rows. Otherwise the part comes
    /// after the other parts of the batch. `inserts` is the number of accepted inserts of the
    /// writer.
    pub(crate) fn own_rejection(
        &mut self,
        error: &ClickHouseError,
        rows: usize,
        inserts: u64,
    ) -> Option<Rejection> {
        let code = error.code().filter(|_| error.class() == Some(ErrorClass::Transient))?;
        if self.in_doubt {
            return None; // the rows may be stored: only an unchanged retry is safe
        }
        let failures = self.bisection.count_failure(code, inserts)?;
        let others = inserts - failures.inserts;
        let is_own = failures.times >= OWN_AFTER && others >= OTHERS_ACCEPTED;
        // A row that becomes a dead letter needs evidence of its own. A part that is halved needs
        // less: it loses nothing if the server was at fault.
        let (can_reject, rejection) = match rows {
            0 | 1 => (is_own, Rejection::Row(None)),
            _ => (is_own || self.own_code == Some(code), Rejection::Size),
        };
        self.own_code = (can_reject && rows > 1).then_some(code);
        if !can_reject {
            self.bisection.postpone();
        }
        can_reject.then_some(rejection)
    }
}
