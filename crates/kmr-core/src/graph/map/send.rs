//! Sends the rows and failures of a builder: they are observed first, then sent downstream.

use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use super::builder::{RowsBuilder, delta};
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
    /// Observes the records of a builder. Then it sends failures to the error branch and rows to
    /// the reducer. Records without either are finished.
    pub(super) async fn send_rows(
        &mut self,
        mut builder: RowsBuilder<R>,
        range: OffsetRange,
        charge: Charge,
    ) -> Result<(), Error> {
        if let Some(error) = builder.take_stop(&self.input.assignment.partition) {
            return Err(error);
        }
        // Before the records are observed: if this trips the circuit breaker, the next run reads
        // them again.
        self.mapping.errors.note(
            Tally {
                source: Source::Partition(&self.input.assignment.partition),
                values: builder.records,
                failed: &builder.failed,
                tombstones: builder.tombstones(),
                weight: 1,
                counted: false,
            },
            builder.last_errors(),
        )?;
        self.mapping.counters.mapped(builder.records, builder.source_bytes);
        let (bytes, dead_letter_bytes) = (builder.resident_bytes(), builder.dead_letter_bytes());
        let RowsBuilder { rows, deltas, base, failures, mapped, links, .. } = builder;
        let mut claim =
            Claim::observe(self.input.assignment.clone(), range, charge, self.input.ledger.clone());
        claim.resize(bytes + dead_letter_bytes);
        if !failures.is_empty() {
            let failed: Vec<i64> = failures.iter().map(|(record, _)| record.offset()).collect();
            let taken_out: Vec<i64> =
                failed.iter().map(|at| at + i64::from(enabled(Mutant::WrongOffset))).collect();
            let claim = claim.take_out_all(&taken_out, dead_letter_bytes);
            let deltas = failed.iter().map(|offset| delta(base, *offset)).collect();
            self.send_failures(failures, Origin::of_records(claim, base, deltas), range.last).await?;
        }
        if rows.is_empty() {
            claim.finish();
            return Ok(());
        }
        let tracked = TrackedRows {
            rows,
            origin: Origin::of_records(claim, base, deltas).with_links(links),
            hand_off: self.hand_off.take(),
        };
        if let Err(TrySendError::Full(mut tracked)) = self.mapping.reducer.try_send(tracked) {
            tracked.hand_off = None;
            self.wait_for_stage(self.mapping.reduce_stage.clone(), range.last);
            // A closed channel means that the reduce stage has failed and the consumer is stopping.
            let _ = self.mapping.reducer.send(tracked).await;
        }
        // The batches count as mapped from here on.
        drop(mapped);
        Ok(())
    }

    /// Sends failed records to the error branch.
    async fn send_failures(
        &mut self,
        failures: Vec<(OwnedRecord, StageError)>,
        origin: Origin,
        last: i64,
    ) -> Result<(), Error> {
        let dead_letter = |(record, failed): (OwnedRecord, StageError)| {
            DeadLetter::new(record, failed.stage.name(), failed.error)
        };
        let dead_letters = failures.into_iter().map(dead_letter).collect();
        self.hand_off = None;
        self.wait_for_stage(Stage::named("reduce_err"), last);
        self.mapping.errors.send(dead_letters, origin).await
    }

    /// The task is about to wait until a stage accepts the rows up to `last`.
    fn wait_for_stage(&mut self, to: Stage, last: i64) {
        self.input.activity.waiting(ActivityState::HandingOver { to }, last);
        self.slice.pause(Instant::now());
    }
}
