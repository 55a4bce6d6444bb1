//! The search for the rows of a batch that the server refuses: which rows to insert next, and what is known by then. Pure: no
//! clock, no I/O.
//!
//! Invariants:
//! 1. Every row ends once: accepted in one insert, or refused in an insert of its own, or refused with all of its part whatever its
//!    values are.
//! 2. What to insert next depends on the answers so far alone, so that the same rows and answers always give the same
//!    inserts under the same names.
//! 3. [`Search::next`] names the same part until it is answered: a part whose answer was lost is sent again as it was.
//!
//! The server may name the first bad row. That row is then inserted alone, and what is left of the part without it: two
//! requests a bad row, and the good rows stay together. Where it names none, or was wrong once, parts are halved; a half
//! whose sibling went in whole must hold the bad row and is halved unasked. One bad row in n costs 2·log2(n) requests at most,
//! k rows about 2k·log2(n/k).

use std::collections::BTreeSet;
use std::ops::Range;

/// So many rows are taken out of one part by the server's hint before it is halved all the same: each costs the whole part once
/// more.
const NAMED_ROWS: u32 = 4;

/// What a refusal says about the rows of its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// At least one row cannot be stored; the number of the first one, from 0, where the server named it.
    Row(Option<usize>),
    /// The rows cannot be stored together. Each of two halves may do.
    Size,
}

/// Rows that are inserted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Lowest and highest row, the end excluded.
    pub(crate) rows: Range<usize>,
    /// Rows in between that are settled already, ascending.
    pub(crate) without: Vec<usize>,
}

/// What an answer led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is something else to try.
    Goes,
    /// This row was refused alone.
    Refused(usize),
    /// A single row cannot be made smaller.
    Stuck,
}

/// How far the rows of one batch have come.
#[derive(Debug)]
pub(crate) struct Search {
    /// Still to be inserted, the next one last.
    pieces: Vec<Piece>,
    /// Rows that were settled alone, and belong to no piece any more.
    settled: BTreeSet<usize>,
    refused: usize,
    /// Whether the server's row numbers were right so far.
    trusts: bool,
    narrowed: bool,
}

#[derive(Debug)]
struct Piece {
    rows: Range<usize>,
    /// Named by the server: one row of the piece below.
    named: bool,
    /// Rows that were taken out of it by the server's hint.
    taken: u32,
    /// Refused rows when it was cut off: with as many now, its sibling went in whole, and this one holds the bad row.
    refused_before: Option<usize>,
}

impl Piece {
    fn new(rows: Range<usize>) -> Self {
        Self { rows, named: false, taken: 0, refused_before: None }
    }
}

impl Search {
    /// A batch of `rows` rows, none of them inserted.
    pub(crate) fn new(rows: usize) -> Self {
        Self {
            pieces: vec![Piece::new(0..rows)],
            settled: BTreeSet::new(),
            refused: 0,
            trusts: true,
            narrowed: false,
        }
    }

    /// The same, of which these rows are settled.
    pub(crate) fn without(rows: usize, settled: &[usize]) -> Self {
        Self { settled: settled.iter().copied().collect(), ..Self::new(rows) }
    }

    /// Whether the batch was taken apart.
    pub(crate) fn has_narrowed(&self) -> bool {
        self.narrowed
    }

    /// Rows refused so far.
    pub(crate) fn refused_rows(&self) -> usize {
        self.refused
    }

    /// What to insert next; `None` when every row has ended.
    pub(crate) fn next(&mut self) -> Option<Part> {
        loop {
            let piece = self.pieces.last()?;
            let part = self.part(piece);
            match part.len() {
                0 => drop(self.pieces.pop()),
                1 => return Some(part),
                _ if piece.refused_before == Some(self.refused) => self.halve(true),
                _ => return Some(part),
            }
        }
    }

    /// The part that [`next`](Self::next) named is in.
    pub(crate) fn accepted(&mut self) {
        if let Some(piece) = self.pieces.pop()
            && piece.named
        {
            // The server named a good row. Its numbers are worth nothing, but the row is in.
            self.trusts = false;
            self.settled.insert(piece.rows.start);
        }
    }

    /// The part that [`next`](Self::next) named was refused, and nothing of it is in.
    pub(crate) fn refused(&mut self, fault: Fault) -> Step {
        let Some(piece) = self.pieces.last() else { return Step::Stuck };
        let part = self.part(piece);
        if part.len() <= 1 {
            return match (fault, part.first()) {
                (Fault::Row(_), Some(row)) => self.settle_refused(row),
                _ => Step::Stuck,
            };
        }
        self.narrowed = true;
        match fault {
            Fault::Row(Some(at)) if self.trusts => match part.nth(at) {
                Some(row) => self.take_out(row),
                None => {
                    self.trusts = false;
                    self.halve(true);
                }
            },
            Fault::Row(_) => self.halve(true),
            Fault::Size => self.halve(false),
        }
        Step::Goes
    }

    /// No row of the part that [`next`](Self::next) named can be stored, whatever its values are. Returns its rows.
    pub(crate) fn refused_whole(&mut self) -> Vec<usize> {
        let part = self.pieces.pop().map(|piece| self.part(&piece));
        let rows: Vec<usize> = part.iter().flat_map(Part::runs).flatten().collect();
        self.refused += rows.len();
        rows
    }

    fn settle_refused(&mut self, row: usize) -> Step {
        self.pieces.pop();
        self.settled.insert(row);
        self.refused += 1;
        Step::Refused(row)
    }

    fn take_out(&mut self, row: usize) {
        match self.pieces.last_mut() {
            Some(piece) if piece.taken < NAMED_ROWS => {
                piece.taken += 1;
                // It has been tried as it is now, and holds the named row for certain.
                piece.refused_before = None;
                self.pieces.push(Piece { named: true, ..Piece::new(row..row + 1) });
            }
            _ => self.halve(true),
        }
    }

    /// `one_is_bad`: at least one of the two halves will be refused.
    fn halve(&mut self, one_is_bad: bool) {
        let Some(piece) = self.pieces.pop() else { return };
        let part = self.part(&piece);
        let middle = part.nth(part.len() / 2).unwrap_or(piece.rows.end);
        let refused_before = one_is_bad.then_some(self.refused);
        self.pieces.push(Piece { refused_before, ..Piece::new(middle..piece.rows.end) });
        self.pieces.push(Piece::new(piece.rows.start..middle));
    }

    fn part(&self, piece: &Piece) -> Part {
        let without = self.settled.range(piece.rows.clone()).copied().collect();
        Part { rows: piece.rows.clone(), without }
    }
}

impl Part {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() - self.without.len()
    }

    /// What to add to the batch's token: another one for each set of rows.
    pub(crate) fn suffix(&self, batch_rows: usize) -> String {
        if self.rows == (0..batch_rows) && self.without.is_empty() {
            return String::new();
        }
        let without = self.without.iter().map(|row| format!(".{row}")).collect::<String>();
        format!("-{}-{}{without}", self.rows.start, self.rows.end)
    }

    /// The rows as ranges without gaps, ascending.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let starts = std::iter::once(self.rows.start).chain(self.without.iter().map(|row| row + 1));
        let ends = self.without.iter().copied().chain(std::iter::once(self.rows.end));
        starts.zip(ends).map(|(start, end)| start..end).filter(|run| !run.is_empty())
    }

    fn first(&self) -> Option<usize> {
        self.runs().next().map(|run| run.start)
    }

    /// The row that is number `at`, from 0.
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
