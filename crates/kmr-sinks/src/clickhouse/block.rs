//! A planned block of exactly-once mode: one insert under the plan's token, without the rows that the table refuses.
//!
//! Invariants (E4 of ARCHITECTURE.md):
//! 1. Whatever is inserted of the block goes under its token, and is all of it but [`Block::excluded_rows`]: the server keeps one such insert
//!    and drops the others, whoever sent them.
//! 2. Rows that are refused are looked for by probes, which write nothing. So it does not matter what became of earlier attempts.

use kmr_core::{Block, DeliveryError, RejectedRow};

use super::delivery::{FrozenBatch, fault, row_error};
use super::error::ClickHouseError;
use super::exactly_once::doubt;
use super::hosts::Blame;
use super::probe::Probe;
use super::search::{Fault, Part, Search, Step};
use super::{limits, telemetry};

/// Which rows of a block the table refuses, as far as that is known. Survives an attempt that is dropped.
pub(crate) struct Looking {
    /// Rows that were left out when it began.
    without: Vec<usize>,
    search: Search,
    refused: Vec<RejectedRow>,
}

/// Why a block is not in.
pub(crate) enum NotIn {
    /// The table will never take these rows; nothing was inserted.
    Refused(Vec<RejectedRow>),
    Failed(ClickHouseError),
}

impl From<ClickHouseError> for NotIn {
    fn from(error: ClickHouseError) -> Self {
        Self::Failed(error)
    }
}

impl From<NotIn> for DeliveryError {
    fn from(why: NotIn) -> Self {
        match why {
            NotIn::Refused(rows) => DeliveryError::rejected(rows),
            NotIn::Failed(error) if error.is_retryable() => DeliveryError::retryable(error),
            NotIn::Failed(error) => DeliveryError::fatal(error),
        }
    }
}

impl FrozenBatch {
    /// Inserts a planned block.
    pub(crate) async fn insert_block(&self, block: &Block) -> Result<(), NotIn> {
        let part = Part { rows: 0..self.content.rows(), without: block.without.to_vec() };
        if part.len() == 0 {
            return Ok(()); // all of it is in the dead letters
        }
        self.trusts(block).await?;
        let body = self.content.part(&part).await?;
        let sent_bytes = body.iter().map(bytes::Bytes::len).sum();
        let (statement, rows) = (self.destination.statement(), part.len() as u64);
        let was_in_doubt = {
            let mut progress = self.progress();
            progress.inserts += 1;
            // An attempt that is dropped before the answer leaves it so.
            std::mem::replace(&mut progress.in_doubt, true)
        };
        let answer = self.destination.insert(0, &statement, (&block.token, rows), body).await;
        let unknown = answer.as_ref().is_err_and(|error| Blame::of(error) == Blame::Unknown);
        self.progress().in_doubt = was_in_doubt || unknown;
        let error = match answer {
            Ok(outcome) => {
                self.progress().accepted(outcome, sent_bytes);
                return Ok(());
            }
            Err(error) => error,
        };
        match fault(&error) {
            Some(Fault::Row(named)) => self.look_for(&part, named, error).await,
            _ => Err(error.into()),
        }
    }

    /// E6: whether the tables may have forgotten a block that was planned.
    async fn trusts(&self, block: &Block) -> Result<(), ClickHouseError> {
        let Some(exact) = &self.exact else { return Ok(()) };
        let (table, endpoint) = (&*self.destination.name, self.destination.hosts.endpoint(0));
        let doubt = doubt(endpoint, table, &exact.windows, block.planned, block.is_replay).await?;
        let in_doubt =
            |why| ClickHouseError::InDoubt { table: table.to_owned(), token: block.token.to_string(), why };
        doubt.map_or(Ok(()), |why| Err(in_doubt(why)))
    }

    /// Finds the rows for which the table refused the part.
    async fn look_for(&self, part: &Part, named: Option<usize>, error: ClickHouseError) -> Result<(), NotIn> {
        self.begin_to_look(part, named, &error);
        let probe = Probe::open(&self.destination).await?;
        while let Some(part) = self.look(|looking| looking.search.next()).flatten() {
            let body = self.content.part(&part).await?;
            self.progress().inserts += 1;
            let refusal = match probe.try_rows(part.len() as u64, body).await {
                Ok(()) => {
                    self.look(|looking| looking.search.accepted());
                    continue;
                }
                Err(error) => error,
            };
            let Some(fault) = fault(&refusal) else { return Err(refusal.into()) };
            match self.look(|looking| looking.search.refused(fault)) {
                Some(Step::Goes) | None => {}
                Some(Step::Stuck) => return Err(refusal.into()),
                Some(Step::Refused(row)) => self.refuse(row, refusal)?,
            }
        }
        let refused = self.progress().looking.take().map_or_else(Vec::new, |looking| looking.refused);
        if refused.is_empty() {
            // It refuses them together, or for a reason that is not in the columns: nobody can say which to leave out.
            telemetry::nothing_found(&self.destination.name, self.rows);
            return Err(error.into());
        }
        Err(NotIn::Refused(refused))
    }

    /// Goes on with the search of the attempt before, if that is about the same rows.
    fn begin_to_look(&self, part: &Part, named: Option<usize>, error: &ClickHouseError) {
        let mut progress = self.progress();
        if progress.looking.as_ref().is_some_and(|looking| looking.without == part.without) {
            return;
        }
        telemetry::search_started(&self.destination.name, self.rows, progress.in_doubt, error);
        let mut search = Search::without(part.rows.len(), &part.without);
        if part.len() > 1 {
            search.next();
            search.refused(Fault::Row(named));
        }
        progress.looking = Some(Looking { without: part.without.clone(), search, refused: Vec::new() });
    }

    fn look<T>(&self, at: impl FnOnce(&mut Looking) -> T) -> Option<T> {
        self.progress().looking.as_mut().map(at)
    }

    /// A row was refused alone.
    fn refuse(&self, row: usize, error: ClickHouseError) -> Result<(), ClickHouseError> {
        let mut progress = self.progress();
        let Some(looking) = &mut progress.looking else { return Ok(()) };
        let refused = looking.without.len() + looking.refused.len() + 1;
        if let Some(what) = self.destination.refuses_too_much(self.rows, refused as u64) {
            return Err(limits::too_many(&self.destination.name, what, error));
        }
        looking.refused.push(RejectedRow::new(row, row_error(error)));
        Ok(())
    }
}
