//! Delivers a planned block, whose rows the sink may reject.
//!
//! Invariants:
//! 1. E4: every insert of the block uses the plan's token, and lacks only rows whose dead letters
//!    are acknowledged. The sink keeps one insert and drops the others. Whichever it keeps, each
//!    row of the block is in it or in a dead letter.
//! 2. A record with a rejected row and other rows is finished when both are, because the block
//!    keeps a part of its claim.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::dead_letter::DeadLetter;
use crate::error::Error;
use crate::graph::claims::hold::Hold;
use crate::graph::dead_letters::ErrorBranch;
use crate::graph::dead_letters::failure_rate::LAST_ERRORS;
use crate::graph::dead_letters::reread::FailedValues;
use crate::graph::observe::status::DeliveryEntry;
use crate::graph::reduce::attempts::{BlockResult, DeliveryContext, deliver_block};
use crate::graph::reduce::batch::Contents;
use crate::graph::reduce::runtime::FrozenRows;
use crate::reducer::{Delivered, Reducer, RejectedRow};
use crate::util::mutants::{Mutant, enabled};

/// A planned block, until the sink has stored it.
pub(super) struct PlannedBlock<R: Reducer> {
    pub(super) delivery: FrozenRows<R>,
    pub(super) context: DeliveryContext,
    pub(super) contents: Contents,
    pub(super) errors: Arc<dyn ErrorBranch>,
    pub(super) rejections: Rejections,
}

/// The rows of a block that the sink has rejected.
#[derive(Debug, Default)]
pub(super) struct Rejections {
    /// Their indices, ascending.
    pub(super) rows: BTreeSet<usize>,
    /// The newest errors.
    pub(super) last: Vec<String>,
    /// Offsets of records that have a dead letter. One per record is enough.
    records: BTreeSet<i64>,
}

impl<R: Reducer> PlannedBlock<R> {
    /// Delivers the block, and repeats it without rejected rows until the sink rejects none.
    /// `None`: a dead letter was abandoned, because the consumer ends. The plan stays in force.
    ///
    /// Cancel safety: dropping it drops the current attempt and abandons the block.
    pub(super) async fn deliver(
        &mut self,
        entry: &DeliveryEntry,
    ) -> Result<Option<Delivered<R::Output>>, Error> {
        loop {
            let rows = match deliver_block(&*self.delivery, &self.context, entry).await? {
                BlockResult::Delivered(delivered) => return Ok(Some(delivered)),
                BlockResult::Rejected(rows) => rows,
            };
            // The block and its partition wait, so a batch of dead letters is due.
            let _waiting = self.errors.wait();
            for acknowledged in self.send_dead_letters(rows).await? {
                if !enabled(Mutant::ExcludesRowsEarly) && acknowledged.await.is_err() {
                    return Ok(None);
                }
            }
            let excluded: Arc<[usize]> = self.rejections.rows.iter().copied().collect();
            let block = self.context.block.take();
            self.context.block = block.map(|block| block.with_excluded_rows(excluded));
        }
    }

    /// Sends the dead letters of rejected rows. Each receiver is notified when one is acknowledged.
    async fn send_dead_letters(
        &mut self,
        mut rows: Vec<RejectedRow>,
    ) -> Result<Vec<oneshot::Receiver<()>>, Error> {
        rows.sort_by_key(|row| row.index);
        let (mut failed, mut acknowledged) = (Vec::new(), Vec::new());
        if rows.is_empty() {
            return Err(self.context.failed("the sink rejects rows without naming any", "no row".into()));
        }
        for RejectedRow { index, error } in rows {
            let offset = self.contents.offset(index);
            let (Some(offset), true) = (offset, self.rejections.rows.insert(index)) else {
                let what = format!("the sink rejected row {index}, which was not sent");
                return Err(self.context.failed(&what, error));
            };
            if !self.rejections.records.insert(offset) {
                continue;
            }
            let holds = self.contents.split_row(index).unwrap_or_default();
            if holds.is_empty() {
                return Err(self.context.failed("no claim covers the record of a rejected row", error));
            }
            acknowledged.extend(holds.iter().filter_map(Hold::when_finished));
            let sources: Vec<_> = holds.iter().flat_map(Hold::sources).take(1).collect();
            let dead_letters = DeadLetter::of_ranges(&sources, &self.context.stage, error);
            self.rejections.last.extend(dead_letters.first().map(DeadLetter::to_string));
            failed.push(FailedValues { dead_letters, holds });
        }
        let surplus = self.rejections.last.len().saturating_sub(LAST_ERRORS);
        self.rejections.last.drain(..surplus);
        self.errors.send_failed(failed).await?;
        Ok(acknowledged)
    }
}
