//! A draft leaves: observed, then on its way to the reducer and to the error branch.

use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use super::builder::{Draft, delta};
use super::partition::Partition;
use crate::dead_letter::DeadLetter;
use crate::error::Error;
use crate::graph::claims::claim::Claim;
use crate::graph::claims::tracked_rows::{Origin, TrackedRows};
use crate::graph::commit::offset_tracker::OffsetRange;
use crate::graph::dead_letters::failure_rate::{Source, Tally};
use crate::graph::memory::budget::Charge;
use crate::graph::observe::activity::ActivityState;
use crate::record::{OwnedRecord, Record};
use crate::reducer::Rows;
use crate::stage::{Chain, Stage, StageError};
use crate::util::mutants::{Mutant, enabled};

impl<C, R> Partition<'_, C, R>
where
    C: for<'r> Chain<In<'r> = &'r Record<'r>>,
    R: Rows<Item = C::Out>,
{
    /// Observes what the draft covers and sends it on: failures to the error branch, rows to the reducer; a draft without
    /// either is finished.
    pub(super) async fn send_draft(
        &mut self,
        mut draft: Draft<R>,
        range: OffsetRange,
        charge: Charge,
    ) -> Result<(), Error> {
        if let Some(error) = draft.take_stop(&self.input.assignment.partition) {
            return Err(error);
        }
        // Before the piece is observed: too much of it, and it is read again by the next run.
        self.mapping.errors.note(
            Tally {
                source: Source::Partition(&self.input.assignment.partition),
                values: draft.records,
                failed: &draft.failed,
                weight: 1,
                counted: false,
            },
            draft.last_errors(),
        )?;
        self.mapping.counters.mapped(draft.records, draft.source_bytes);
        let (bytes, letter_bytes) = (draft.resident_bytes(), draft.letter_bytes());
        let Draft { rows, deltas, base, failures, mapped, .. } = draft;
        let mut claim =
            Claim::observe(self.input.assignment.clone(), range, charge, self.input.ledger.clone());
        claim.resize(bytes + letter_bytes);
        if !failures.is_empty() {
            let failed: Vec<i64> = failures.iter().map(|(record, _)| record.offset()).collect();
            let carved: Vec<i64> =
                failed.iter().map(|at| at + i64::from(enabled(Mutant::WrongOffset))).collect();
            let claim = claim.take_out_all(&carved, letter_bytes);
            let deltas = failed.iter().map(|offset| delta(base, *offset)).collect();
            let letter = |(record, failed): (OwnedRecord, StageError)| {
                DeadLetter::new(record, failed.stage.name(), failed.error)
            };
            let letters = failures.into_iter().map(letter).collect();
            self.turn = None;
            self.hand_over(Stage::named("reduce_err"), range.last);
            self.mapping.errors.send(letters, Origin::of_records(claim, base, deltas)).await?;
        }
        if rows.is_empty() {
            claim.finish();
            return Ok(());
        }
        let piece =
            TrackedRows { rows, origin: Origin::of_records(claim, base, deltas), handoff: self.turn.take() };
        if let Err(TrySendError::Full(mut piece)) = self.mapping.reducer.try_send(piece) {
            piece.handoff = None;
            self.hand_over(self.mapping.reduce_stage.clone(), range.last);
            // A closed channel, here and above, means that the reduce stage has failed and the consumer is stopping.
            let _ = self.mapping.reducer.send(piece).await;
        }
        // The batches count as mapped from here on.
        drop(mapped);
        Ok(())
    }

    /// The task is going to wait until a stage takes what is mapped up to `last`.
    fn hand_over(&mut self, to: Stage, last: i64) {
        self.input.pulse.waiting(ActivityState::HandingOver { to }, last);
        self.pace.pause(Instant::now());
    }
}
