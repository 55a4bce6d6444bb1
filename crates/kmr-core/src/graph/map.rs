//! The map phase: one task per assigned partition maps borrowed records in place and sends on what they became.
//!
//! Invariants:
//! 1. Records are mapped and sent in the order of their offsets; a piece is observed before it is sent.
//! 2. A record's rows travel together with it: a failed record leaves none behind.
//! 3. What was not mapped when the partition stops was never observed: the next owner reads it again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::budget::{Charge, Unmapped};
use super::claim::{Assignment, Claim, Ledger};
use super::dead_letters::ErrorBranch;
use super::defects::{Defect, planted};
use super::piece::{Origin, Piece};
use super::pulse::{Pulse, PulseState};
use super::tracker::Offsets;
use crate::dead_letter::DeadLetter;
use crate::error::{BoxError, Error, StopConsumer};
use crate::member::{RECORD_OVERHEAD, RecordBatch};
use crate::record::{OwnedRecord, Record, TopicPartition};
use crate::reducer::Rows;
use crate::stage::{BoxFuture, Chain, Stage, StageError, Step};
use crate::stats::Counters;

/// Rows of a piece past which it is sent on, so that a `flat_map` cannot grow it without bound.
const MAX_PIECE_ROWS: usize = 8192;
/// The same in bytes.
const MAX_PIECE_BYTES: usize = 1 << 20;

/// Records between two looks at the clock.
const PULSE_RECORDS: usize = 16;
/// How long mapped records wait for an asynchronous one behind them.
const LINGER: Duration = Duration::from_millis(20);
/// Memory of a dead letter beside its record's key and payload.
const LETTER_OVERHEAD: usize = 512;

/// Records on their way from the intake to a partition's task.
pub(crate) struct Admitted {
    pub(crate) batch: Box<dyn RecordBatch>,
    pub(crate) charge: Charge,
    pub(crate) unmapped: Unmapped,
}

/// What one partition's task works with.
pub(crate) struct PartitionInput {
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) batches: mpsc::UnboundedReceiver<Admitted>,
    pub(crate) stop: CancellationToken,
    pub(crate) ledger: Ledger,
    /// What the task is doing, for whoever wants to know.
    pub(crate) pulse: Arc<Pulse>,
    /// The offset behind the last record that was taken. librdkafka may hand records out again after a rebalance that came
    /// between taking them and its noting so; they are on their way already.
    pub(crate) next: i64,
}

/// The map stages of a strategy, ready to run for any partition.
pub(crate) trait MapPhase: Send + Sync + 'static {
    fn run_partition(self: Arc<Self>, input: PartitionInput) -> BoxFuture<'static, Result<(), Error>>;
}

/// The map stages in front of a reduce.
pub(crate) struct Mapping<C, R: Rows> {
    chain: C,
    rows: Mutex<R>,
    reducer: mpsc::Sender<Piece<R>>,
    reduce_stage: Stage,
    errors: Arc<dyn ErrorBranch>,
    counters: Arc<Counters>,
}

impl<C, R> Mapping<C, R>
where
    C: for<'r> Chain<In<'r> = &'r Record<'r>>,
    R: Rows<Item = C::Out>,
{
    pub(crate) fn new(
        chain: C,
        rows: R,
        (reduce_stage, reducer): (Stage, mpsc::Sender<Piece<R>>),
        errors: Arc<dyn ErrorBranch>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { chain, rows: Mutex::new(rows), reducer, reduce_stage, errors, counters }
    }

    fn draft(&self) -> Draft<R> {
        Draft::new(self.rows.lock().unwrap_or_else(PoisonError::into_inner).fresh())
    }

    /// Maps a batch. `Ok(false)`: the partition stops, and what was not mapped yet is left to the next owner.
    async fn map_batch(&self, admitted: Admitted, input: &mut PartitionInput) -> Result<bool, Error> {
        let Admitted { batch, mut charge, unmapped: _unmapped } = admitted;
        let mut draft = self.draft();
        for index in 0..batch.len() {
            let offset = batch.offset(index);
            if offset < input.next {
                continue;
            }
            input.next = offset + 1;
            if index % PULSE_RECORDS == 0 {
                input.pulse.mapping(offset, Instant::now());
            }
            if draft.is_full_for(offset) {
                let full = std::mem::replace(&mut draft, self.draft());
                let part = charge.split(full.charged);
                self.send(full, part, input).await?;
            }
            let mut mark = draft.rows.len();
            let step = {
                let record = batch.record(index);
                draft.begin(&record);
                self.chain.start(&record, &mut |row| draft.push(row))
            };
            let result = match step {
                Step::Done(result) => result,
                Step::Later(values) => match self.wait(values, &mut draft, &mut charge, input).await? {
                    Some(values) => {
                        mark = draft.rows.len();
                        values.map(|values| values.into_iter().for_each(|row| draft.push(row)))
                    }
                    None => {
                        self.send(draft, charge, input).await?;
                        return Ok(false);
                    }
                },
            };
            draft.end(mark, result, &self.reduce_stage, || batch.record(index).to_owned());
        }
        drop(batch);
        self.send(draft, charge, input).await?;
        Ok(true)
    }

    /// Awaits the values of one record; what was mapped before it does not wait for long. `None`: the partition stops.
    async fn wait(
        &self,
        mut values: BoxFuture<'_, Result<Vec<C::Out>, StageError>>,
        draft: &mut Draft<R>,
        charge: &mut Charge,
        input: &PartitionInput,
    ) -> Result<Option<Result<Vec<C::Out>, StageError>>, Error> {
        loop {
            input.pulse.waiting(PulseState::Awaiting, draft.current);
            tokio::select! {
                biased;
                () = input.stop.cancelled() => return Ok(None),
                values = &mut values => return Ok(Some(values)),
                () = sleep(LINGER), if draft.range.is_some() => {
                    let mut rest = self.draft();
                    rest.begin_at(draft.current, draft.current_bytes);
                    let ready = std::mem::replace(draft, rest);
                    let part = charge.split(ready.charged);
                    self.send(ready, part, input).await?;
                }
            }
        }
    }

    /// Observes what a draft covers and sends it on: failures to the error branch, rows to the reducer; a draft without
    /// either is finished.
    async fn send(&self, mut draft: Draft<R>, charge: Charge, input: &PartitionInput) -> Result<(), Error> {
        let Some(range) = draft.range else { return Ok(()) };
        if let Some(error) = draft.take_stop(&input.assignment.partition) {
            return Err(error);
        }
        self.counters.mapped(draft.records, draft.source_bytes);
        let (bytes, letter_bytes) = (draft.resident_bytes(), draft.letter_bytes());
        let Draft { rows, deltas, base, failures, .. } = draft;
        let mut claim = Claim::observe(input.assignment.clone(), range, charge, input.ledger.clone());
        claim.resize(bytes + letter_bytes);
        if !failures.is_empty() {
            let failed: Vec<i64> = failures.iter().map(|(record, _)| record.offset()).collect();
            let carved: Vec<i64> =
                failed.iter().map(|at| at + i64::from(planted(Defect::WrongOffset))).collect();
            let claim = claim.carve_all(&carved, letter_bytes);
            let deltas = failed.iter().map(|offset| delta(base, *offset)).collect();
            let letters = failures.into_iter().map(|(record, error)| {
                DeadLetter::new(record, error.stage.name(), error.error) //
            });
            let to = Stage::named("reduce_err");
            input.pulse.waiting(PulseState::HandingOver { to }, input.next);
            self.errors.send(letters.collect(), Origin::of_records(claim, base, deltas)).await?;
        }
        if rows.is_empty() {
            claim.finish();
            return Ok(());
        }
        let piece = Piece { rows, origin: Origin::of_records(claim, base, deltas) };
        if let Err(TrySendError::Full(piece)) = self.reducer.try_send(piece) {
            input.pulse.waiting(PulseState::HandingOver { to: self.reduce_stage.clone() }, input.next);
            // A closed channel, here and above, means that the reduce stage has failed and the consumer is stopping.
            let _ = self.reducer.send(piece).await;
        }
        Ok(())
    }
}

impl<C, R> MapPhase for Mapping<C, R>
where
    C: for<'r> Chain<In<'r> = &'r Record<'r>>,
    R: Rows<Item = C::Out>,
{
    fn run_partition(self: Arc<Self>, mut input: PartitionInput) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            loop {
                if input.batches.is_empty() {
                    input.pulse.idle();
                }
                let admitted = tokio::select! {
                    biased;
                    () = input.stop.cancelled() => return Ok(()),
                    admitted = input.batches.recv() => admitted,
                };
                let Some(admitted) = admitted else { return Ok(()) };
                if !self.map_batch(admitted, &mut input).await? {
                    return Ok(());
                }
            }
        })
    }
}

/// The piece under construction, with the records that failed.
struct Draft<R> {
    rows: R,
    deltas: Vec<u32>,
    /// Offset of the first record, ended or not.
    base: i64,
    /// Offset of the record that is being mapped.
    current: i64,
    /// Bytes of the record that is being mapped.
    current_bytes: usize,
    /// Records that have ended: mapped, skipped or failed.
    range: Option<Offsets>,
    records: usize,
    source_bytes: usize,
    /// What the budget was charged for the records that have ended.
    charged: usize,
    failures: Vec<(OwnedRecord, StageError)>,
    refused: Option<BoxError>,
}

impl<R: Rows> Draft<R> {
    fn new(rows: R) -> Self {
        Self {
            rows,
            deltas: Vec::new(),
            base: 0,
            current: 0,
            current_bytes: 0,
            range: None,
            records: 0,
            source_bytes: 0,
            charged: 0,
            failures: Vec::new(),
            refused: None,
        }
    }

    /// Whether a record at `offset` needs a new piece.
    fn is_full_for(&self, offset: i64) -> bool {
        self.range.is_some()
            && (self.rows.len() >= MAX_PIECE_ROWS
                || self.rows.bytes() >= MAX_PIECE_BYTES
                || offset - self.base > i64::from(u32::MAX))
    }

    fn begin(&mut self, record: &Record<'_>) {
        self.begin_at(record.offset, source_bytes(record));
    }

    fn begin_at(&mut self, offset: i64, bytes: usize) {
        if self.range.is_none() {
            self.base = offset;
        }
        self.current = offset;
        self.current_bytes = bytes;
    }

    #[inline]
    fn push(&mut self, row: R::Item) {
        if self.refused.is_none() {
            match self.rows.push(row) {
                Ok(()) => self.deltas.push(delta(self.base, self.current)),
                Err(error) => self.refused = Some(error),
            }
        }
    }

    /// Takes the rows of the record that is being mapped out again.
    fn truncate(&mut self, mark: usize) {
        self.rows.truncate(mark);
        self.deltas.truncate(mark);
    }

    /// The record is done with: its rows stay, or it has failed and leaves none.
    fn end(
        &mut self,
        mark: usize,
        result: Result<(), StageError>,
        encoder: &Stage,
        record: impl FnOnce() -> OwnedRecord,
    ) {
        let refused = self.refused.take().map(|error| StageError { stage: encoder.clone(), error });
        if let Some(error) = result.err().or(refused) {
            self.truncate(mark);
            self.failures.push((record(), error));
        }
        let first = self.range.map_or(self.current, |range| range.first);
        self.range = Some(Offsets::new(first, self.current));
        self.records += 1;
        self.source_bytes += self.current_bytes;
        self.charged += self.current_bytes + RECORD_OVERHEAD;
    }

    /// The first failure that is to stop the consumer, if there is one. Nothing of the piece is observed then.
    fn take_stop(&mut self, partition: &TopicPartition) -> Option<Error> {
        let index = self.failures.iter().position(|(_, failed)| failed.error.is::<StopConsumer>())?;
        let (record, StageError { stage, error }) = self.failures.swap_remove(index);
        let source = error.downcast::<StopConsumer>().map_or_else(|error| error, |stop| stop.into_inner());
        let what = format!("{partition} offset {} stops the consumer", record.offset());
        Some(Error::Stage { stage: stage.to_string(), what, source })
    }

    /// Bytes of memory that the piece's rows hold, as far as they are known.
    fn resident_bytes(&self) -> usize {
        let rows =
            if self.rows.is_empty() { 0 } else { self.rows.resident_bytes().unwrap_or(self.source_bytes) };
        rows + self.deltas.len() * size_of::<u32>()
    }

    fn letter_bytes(&self) -> usize {
        self.failures.iter().map(|(record, _)| source_bytes(&record.as_record()) + LETTER_OVERHEAD).sum()
    }
}

fn source_bytes(record: &Record<'_>) -> usize {
    record.payload.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len)
}

/// `is_full_for` has made sure that it fits.
fn delta(base: i64, offset: i64) -> u32 {
    u32::try_from(offset - base).unwrap_or(u32::MAX)
}
