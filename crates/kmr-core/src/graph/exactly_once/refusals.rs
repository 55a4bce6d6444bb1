//! A planned block on its way, whose rows the sink may refuse.
//!
//! Invariants:
//! 1. E4: every insert of the block goes under the plan's token, and lacks no row but those whose dead letters are acknowledged. So
//!    whichever insert the sink keeps, and drops the others for, each row of the block is in it or in a dead letter.
//! 2. A record that has both, a refused row and others, is finished when both are: the block keeps a part in it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Frozen;
use crate::dead_letter::DeadLetter;
use crate::error::Error;
use crate::graph::claims::claim::Hold;
use crate::graph::dead_letters::ErrorBranch;
use crate::graph::dead_letters::failure_rate::LAST_ERRORS;
use crate::graph::dead_letters::reread::Failed;
use crate::graph::observe::status::Delivering;
use crate::graph::reduce::attempts::{Ended, FlightPlan, fly_block};
use crate::graph::reduce::batch::Contents;
use crate::reducer::{Delivered, Reducer, RejectedRow};
use crate::util::mutants::{Mutant, enabled};

/// A planned block, until it is in the sink.
pub(super) struct Planned<R: Reducer> {
    pub(super) delivery: Frozen<R>,
    pub(super) plan: FlightPlan,
    pub(super) contents: Contents,
    pub(super) errors: Arc<dyn ErrorBranch>,
    pub(super) refused: Refused,
}

/// What the sink has refused of a block.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// By their index, ascending.
    pub(super) rows: BTreeSet<usize>,
    /// The newest errors.
    pub(super) last: Vec<String>,
    /// Records that have a letter: one is enough.
    records: BTreeSet<i64>,
}

impl<R: Reducer> Planned<R> {
    /// Delivers the block, as often without refused rows as it takes. `None`: a dead letter was given up, because the consumer ends;
    /// the plan stays in force.
    ///
    /// Cancel safety: dropping it drops the attempt under way, and gives the block up.
    pub(super) async fn deliver(
        &mut self,
        entry: &Delivering,
    ) -> Result<Option<Delivered<R::Output>>, Error> {
        loop {
            let rows = match fly_block(&*self.delivery, &self.plan, entry).await? {
                Ended::Delivered(delivered) => return Ok(Some(delivered)),
                Ended::Refused(rows) => rows,
            };
            for acknowledged in self.send_letters(rows).await? {
                if !enabled(Mutant::ExcludesRowsEarly) && acknowledged.await.is_err() {
                    return Ok(None);
                }
            }
            let without: Arc<[usize]> = self.refused.rows.iter().copied().collect();
            self.plan.block = self.plan.block.take().map(|block| block.with_excluded_rows(without));
        }
    }

    /// Sends the dead letters of refused rows. Each of what comes back is told when one is acknowledged.
    async fn send_letters(
        &mut self,
        mut rows: Vec<RejectedRow>,
    ) -> Result<Vec<oneshot::Receiver<()>>, Error> {
        rows.sort_by_key(|row| row.index);
        let (mut failed, mut acknowledged) = (Vec::new(), Vec::new());
        if rows.is_empty() {
            return Err(self.plan.failed("the sink refuses rows of it and names none", "no row".into()));
        }
        for RejectedRow { index, error } in rows {
            let offset = self.contents.offset(index);
            let (Some(offset), true) = (offset, self.refused.rows.insert(index)) else {
                let what = format!("the sink refused row {index}, which it has not been sent");
                return Err(self.plan.failed(&what, error));
            };
            if !self.refused.records.insert(offset) {
                continue;
            }
            let holds = self.contents.share_row(index).unwrap_or_default();
            if holds.is_empty() {
                return Err(self.plan.failed("nothing answers for the record of a refused row", error));
            }
            acknowledged.extend(holds.iter().filter_map(Hold::when_finished));
            let sources: Vec<_> = holds.iter().flat_map(Hold::sources).take(1).collect();
            let letters = DeadLetter::of_ranges(&sources, &self.plan.stage, error);
            self.refused.last.extend(letters.first().map(DeadLetter::to_string));
            failed.push(Failed { letters, holds });
        }
        let surplus = self.refused.last.len().saturating_sub(LAST_ERRORS);
        self.refused.last.drain(..surplus);
        self.errors.send_failed(failed).await?;
        Ok(acknowledged)
    }
}
