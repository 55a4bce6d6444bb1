//! Finds the rows that the server rejects: decides which rows of a batch to insert next. Pure: no
//! clock, no I/O.
//!
//! Invariants:
//! 1. Every row is settled once: accepted in one insert, rejected in an insert of its own, or
//!    rejected with its whole part for a reason that does not depend on its values.
//! 2. Only the responses so far decide which rows are inserted next. The same rows and responses
//!    always give the same inserts under the same tokens.
//! 3. [`Bisection::next`] returns the same part until the caller reports its outcome. A part whose
//!    response was lost is sent again unchanged. A part that certainly stored nothing can be
//!    postponed.
//!
//! The server may name the first bad row. That row is then inserted alone, and the rest of the part
//! without it: two requests for each bad row, and the good rows stay together. Where the server
//! names none, or was wrong once, parts are halved. A half whose sibling was accepted whole must
//! contain the bad row, and is halved without an insert. One bad row in n costs at most 2·log2(n)
//! requests, k rows about 2k·log2(n/k).

use std::collections::BTreeSet;
use std::ops::Range;

/// Rows that are taken out of one part because the server named them, before the part is halved.
/// Each of them costs one more insert of the whole part.
const NAMED_ROWS: u32 = 4;

/// Why the server rejected a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// At least one row cannot be stored: the first one, counted from 0, where the server named it.
    Row(Option<usize>),
    /// The rows cannot be stored in one insert. Two halves may be accepted.
    Size,
}

/// Rows that are inserted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// From the lowest row to the end of the highest.
    pub(crate) rows: Range<usize>,
    /// Rows in this range that are settled already, ascending.
    pub(crate) excluded: Vec<usize>,
}

/// Temporary errors that one part has met, with the same code each time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartFailures {
    pub(crate) code: u32,
    pub(crate) times: u32,
    /// Accepted inserts of the writer at the first of them.
    pub(crate) inserts: u64,
}

/// What follows from a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There are other rows to try.
    Continue,
    /// This row was rejected alone.
    Rejected(usize),
    /// A single row cannot be halved.
    Stuck,
}

/// The state of the rows of one batch.
#[derive(Debug)]
pub(crate) struct Bisection {
    /// Rows still to be inserted, the next ones last.
    pending: Vec<Pending>,
    /// Rows that were settled alone.
    settled: BTreeSet<usize>,
    rejected: usize,
    /// Whether all row numbers from the server were right so far.
    trusts_server: bool,
    split: bool,
}

#[derive(Debug)]
struct Pending {
    rows: Range<usize>,
    /// Whether this is one row that the server named; the rest of its part is below it.
    named: bool,
    /// Rows that were taken out because the server named them.
    taken_out: u32,
    /// Number of rejected rows when it was split off. If it has not grown, the sibling was accepted
    /// whole, and this half contains the bad row.
    rejected_before: Option<usize>,
    failures: Option<PartFailures>,
}

impl Pending {
    fn new(rows: Range<usize>) -> Self {
        Self { rows, named: false, taken_out: 0, rejected_before: None, failures: None }
    }
}

impl Bisection {
    /// For a batch of `rows` rows, none of them inserted.
    pub(crate) fn new(rows: usize) -> Self {
        Self {
            pending: vec![Pending::new(0..rows)],
            settled: BTreeSet::new(),
            rejected: 0,
            trusts_server: true,
            split: false,
        }
    }

    /// For a batch of which the rows `settled` are settled.
    pub(crate) fn excluding(rows: usize, settled: &[usize]) -> Self {
        Self { settled: settled.iter().copied().collect(), ..Self::new(rows) }
    }

    /// Whether the batch was split.
    pub(crate) fn has_split(&self) -> bool {
        self.split
    }

    /// Number of rows rejected so far.
    pub(crate) fn rejected_rows(&self) -> usize {
        self.rejected
    }

    /// The rows to insert next; `None` when every row is settled.
    pub(crate) fn next(&mut self) -> Option<Part> {
        loop {
            let next = self.pending.last()?;
            let part = self.part(next);
            match part.len() {
                0 => drop(self.pending.pop()),
                1 => return Some(part),
                _ if next.rejected_before == Some(self.rejected) => self.halve(true),
                _ => return Some(part),
            }
        }
    }

    /// The server stored the part that [`next`](Self::next) returned.
    pub(crate) fn accepted(&mut self) {
        if let Some(next) = self.pending.pop()
            && next.named
        {
            // The server named a good row, so its numbers are not reliable. The row is stored.
            self.trusts_server = false;
            self.settled.insert(next.rows.start);
        }
    }

    /// The server rejected the part that [`next`](Self::next) returned, and stored none of it.
    pub(crate) fn rejected(&mut self, rejection: Rejection) -> Step {
        let Some(next) = self.pending.last() else { return Step::Stuck };
        let part = self.part(next);
        if part.len() <= 1 {
            return match (rejection, part.first()) {
                (Rejection::Row(_), Some(row)) => self.settle_rejected(row),
                _ => Step::Stuck,
            };
        }
        self.split = true;
        match rejection {
            Rejection::Row(Some(at)) if self.trusts_server => match part.nth(at) {
                Some(row) => self.take_out(row),
                None => {
                    self.trusts_server = false;
                    self.halve(true);
                }
            },
            Rejection::Row(_) => self.halve(true),
            Rejection::Size => self.halve(false),
        }
        Step::Continue
    }

    /// Rejects all rows of the part that [`next`](Self::next) returned, whatever their values are.
    /// Returns the rows.
    pub(crate) fn reject_part(&mut self) -> Vec<usize> {
        let part = self.pending.pop().map(|next| self.part(&next));
        let rows: Vec<usize> = part.iter().flat_map(Part::runs).flatten().collect();
        self.rejected += rows.len();
        rows
    }

    /// Counts a temporary error of the part that [`next`](Self::next) returned. `inserts` is the
    /// number of accepted inserts of the writer.
    pub(crate) fn count_failure(&mut self, code: u32, inserts: u64) -> Option<PartFailures> {
        let next = self.pending.last_mut()?;
        let before = next.failures.filter(|before| before.code == code);
        let mut failures = before.unwrap_or(PartFailures { code, times: 0, inserts });
        failures.times += 1;
        next.failures = Some(failures);
        next.failures
    }

    /// Tries all other parts before the one that [`next`](Self::next) returned, of which nothing is
    /// stored.
    pub(crate) fn postpone(&mut self) {
        // The rest of its part still contains a row that the server named.
        let Some(next) = self.pending.pop_if(|next| !next.named) else { return };
        if let Some(sibling) = self.pending.last_mut() {
            sibling.rejected_before = None; // the bad row may be in the postponed half
        }
        self.pending.insert(0, next);
    }

    fn settle_rejected(&mut self, row: usize) -> Step {
        self.pending.pop();
        self.settled.insert(row);
        self.rejected += 1;
        Step::Rejected(row)
    }

    fn take_out(&mut self, row: usize) {
        match self.pending.last_mut() {
            Some(next) if next.taken_out < NAMED_ROWS => {
                next.taken_out += 1;
                // It was inserted in its present form, and certainly contains the named row.
                next.rejected_before = None;
                self.pending.push(Pending { named: true, ..Pending::new(row..row + 1) });
            }
            _ => self.halve(true),
        }
    }

    /// With `one_is_bad`, at least one of the two halves will be rejected.
    fn halve(&mut self, one_is_bad: bool) {
        let Some(next) = self.pending.pop() else { return };
        let part = self.part(&next);
        let middle = part.nth(part.len() / 2).unwrap_or(next.rows.end);
        let rejected_before = one_is_bad.then_some(self.rejected);
        self.pending.push(Pending { rejected_before, ..Pending::new(middle..next.rows.end) });
        self.pending.push(Pending::new(next.rows.start..middle));
    }

    fn part(&self, next: &Pending) -> Part {
        let excluded = self.settled.range(next.rows.clone()).copied().collect();
        Part { rows: next.rows.clone(), excluded }
    }
}

impl Part {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() - self.excluded.len()
    }

    /// The suffix of the batch's token, different for each set of rows.
    pub(crate) fn suffix(&self, batch_rows: usize) -> String {
        if self.rows == (0..batch_rows) && self.excluded.is_empty() {
            return String::new();
        }
        let excluded = self.excluded.iter().map(|row| format!(".{row}")).collect::<String>();
        format!("-{}-{}{excluded}", self.rows.start, self.rows.end)
    }

    /// The rows as ranges without gaps, ascending.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let starts = std::iter::once(self.rows.start).chain(self.excluded.iter().map(|row| row + 1));
        let ends = self.excluded.iter().copied().chain(std::iter::once(self.rows.end));
        starts.zip(ends).map(|(start, end)| start..end).filter(|run| !run.is_empty())
    }

    fn first(&self) -> Option<usize> {
        self.runs().next().map(|run| run.start)
    }

    /// The row at index `at`.
    fn nth(&self, mut at: usize) -> Option<usize> {
        for run in self.runs() {
            if at < run.len() {
                return Some(run.start + at);
            }
            at -= run.len();
        }
        None
    }
}

#[cfg(test)]
mod tests;
