//! One partition's task: takes batches, starts records, ends them in order, sends pieces.
//!
//! Records that need no waiting go straight into the draft, in a loop without a queue or an allocation. The first one that has to
//! wait opens the window: it and those behind it pass through there until it is empty again.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};

use futures_util::stream::FuturesUnordered;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::task::{block_in_place, yield_now};
use tokio::time::Instant;

use super::builder::Draft;
use super::pending::Busy;
use super::reorder_buffer::{Done, Slot, Window};
use super::retry::Attempts;
use super::yielding::{Look, Pace};
use super::{Mapping, PartitionInput, source_bytes};
use crate::error::Error;
use crate::graph::commit::ledger::LedgerEntry;
use crate::graph::fetch::handoff::HandOff;
use crate::graph::fetch::routes::Admitted;
use crate::graph::memory::budget::{Charge, Unmapped};
use crate::member::RecordBatch;
use crate::record::{OwnedRecord, Record};
use crate::reducer::Rows;
use crate::stage::{Chain, Step};

/// A batch with records that have not ended.
struct Load {
    batch: Box<dyn RecordBatch>,
    records: usize,
    /// What it was charged.
    bytes: usize,
    unmapped: Unmapped,
    log_end: Option<i64>,
    /// Records that were taken from it.
    taken: usize,
}

impl Load {
    fn is_taken(&self) -> bool {
        self.taken >= self.records
    }
}

/// What the task does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It goes on.
    Advance,
    /// The draft is sent.
    Send,
    /// Others get a turn.
    Yield,
    /// It waits until something happens.
    Wait,
    /// The partition stops, or its input has ended and nothing is left.
    End,
}

/// One partition's task.
pub(super) struct Partition<'a, C: Chain, R: Rows> {
    pub(super) mapping: &'a Mapping<C, R>,
    pub(super) input: PartitionInput,
    pub(super) input_ended: bool,
    /// Batches in order. Records are taken from the last one, and end in the first.
    loads: VecDeque<Load>,
    /// The number of the first batch.
    first_load: u64,
    /// What the batches and the draft hold of the budget.
    charge: Option<Charge>,
    /// Held until the task waits or sends something on.
    pub(super) turn: Option<HandOff>,
    pub(super) window: Window<C::Out>,
    pub(super) busy: FuturesUnordered<Busy<'a, C::Out>>,
    pub(super) draft: Draft<R>,
    /// When a draft is sent that waits for the records behind it.
    pub(super) flush_at: Option<Instant>,
    pub(super) pace: Pace,
    pub(super) warned: Option<Instant>,
    may_offload: bool,
}

impl<'a, C, R> Partition<'a, C, R>
where
    C: for<'r> Chain<In<'r> = &'r Record<'r>>,
    R: Rows<Item = C::Out>,
{
    pub(super) fn new(mapping: &'a Mapping<C, R>, input: PartitionInput) -> Self {
        Self {
            mapping,
            input,
            input_ended: false,
            loads: VecDeque::new(),
            first_load: 0,
            charge: None,
            turn: None,
            window: Window::new(mapping.options.concurrency),
            busy: FuturesUnordered::new(),
            draft: mapping.draft(),
            flush_at: None,
            pace: Pace::new(),
            warned: None,
            may_offload: Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread,
        }
    }

    /// Runs until the partition stops or its input ends, or a record stops the consumer.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        let mut next = Next::Advance;
        loop {
            next = match next {
                Next::Advance if self.pace.is_slow() && self.may_offload => self.advance_elsewhere().await,
                Next::Advance => self.advance(),
                Next::Wait => {
                    self.turn = None;
                    self.wait().await
                }
                Next::Send => {
                    self.send().await?;
                    Next::Advance
                }
                Next::Yield => {
                    self.turn = None;
                    if self.is_overdue() {
                        self.send().await?;
                    }
                    yield_now().await;
                    Next::Advance
                }
                Next::End => {
                    // What is not mapped was never observed.
                    self.busy.clear();
                    return self.send().await;
                }
            };
        }
    }

    /// Goes on off the runtime's worker threads: the other tasks of this one are taken over by another.
    async fn advance_elsewhere(&mut self) -> Next {
        self.turn = None;
        let permit = tokio::select! {
            biased;
            () = self.input.stop.cancelled() => return Next::End,
            permit = self.mapping.offloads.acquire() => permit,
        };
        let next = block_in_place(|| self.advance());
        drop(permit);
        next
    }

    /// Does what can be done without waiting.
    fn advance(&mut self) -> Next {
        loop {
            if self.end_done() {
                return Next::Send;
            }
            let next = if self.window.is_empty() { self.map_in_place() } else { self.start_next() };
            if next != Next::Advance {
                return next;
            }
        }
    }

    /// Takes the next batch, if there is one already.
    fn take_batch(&mut self) -> Next {
        match self.input.batches.try_recv() {
            Ok(admitted) => self.load(admitted),
            Err(TryRecvError::Empty) => return Next::Wait,
            Err(TryRecvError::Disconnected) => {
                self.input_ended = true;
                return if self.window.is_empty() { Next::End } else { Next::Wait };
            }
        }
        Next::Advance
    }

    /// Puts a batch behind those that are there.
    pub(super) fn load(&mut self, Admitted { batch, charge, unmapped, log_end, turn }: Admitted) {
        let records = batch.len();
        // Off the worker threads there is nobody to pass it on.
        self.turn = turn.filter(|_| !self.pace.is_slow());
        self.loads.push_back(Load { batch, records, bytes: charge.bytes(), unmapped, log_end, taken: 0 });
        match &mut self.charge {
            Some(held) => held.absorb(charge),
            None => self.charge = Some(charge),
        }
    }

    /// Whether there are records that have not been taken yet.
    pub(super) fn has_next(&self) -> bool {
        self.loads.back().is_some_and(|load| !load.is_taken())
    }

    /// Maps records straight into the draft, up to the end of the batch or the first that has to wait.
    fn map_in_place(&mut self) -> Next {
        if !self.has_next() {
            return self.take_batch();
        }
        let number = self.last_load();
        let Self { mapping, input, loads, window, busy, draft, pace, .. } = self;
        let mapping: &'a Mapping<C, R> = mapping;
        let Some(load) = loads.back_mut() else { return Next::Advance };
        if load.taken == 0 {
            draft.reserve(load.records);
        }
        while !load.is_taken() {
            let offset = load.batch.offset(load.taken);
            if draft.is_full_for(offset) {
                return Next::Send;
            }
            if pace.is_due() {
                let next = look(pace, input, offset);
                if next != Next::Advance {
                    return next;
                }
            }
            let end = load.records.min(load.taken + pace.allowance());
            let (taken, waits) = run(mapping, (load, end), &mut input.next, draft);
            pace.spend(taken - load.taken);
            load.taken = taken;
            let Some(waits) = waits else { continue };
            let index = taken - 1;
            let record = load.batch.record(index);
            let number = window.push_busy(slot(&record, (number, index), window.is_by_key(), pace));
            match waits {
                Step::Later(call) => busy.push(Busy::mapping(number, call)),
                Step::Done(result) => self.attempted(number, result.map(|()| Vec::new())),
            }
            return Next::Advance;
        }
        Next::Advance
    }

    /// Starts the next record that may start, or takes one into the window.
    fn start_next(&mut self) -> Next {
        if let Some(number) = self.window.next_ready() {
            let offset = self.window.get(number).map_or(self.input.next, |slot| slot.offset);
            if self.pace.is_due() {
                let next = look(&mut self.pace, &self.input, offset);
                if next != Next::Advance {
                    return next;
                }
            }
            self.pace.spend(1);
            self.window.start_next();
            self.start(number);
            return Next::Advance;
        }
        if !self.window.has_room() {
            return Next::Wait;
        }
        if !self.has_next() {
            return self.take_batch();
        }
        let number = self.last_load();
        if let Some(load) = self.loads.back_mut() {
            let index = load.taken;
            load.taken += 1;
            let record = load.batch.record(index);
            if record.offset >= self.input.next {
                self.input.next = record.offset + 1;
                self.window.push(slot(&record, (number, index), self.window.is_by_key(), &self.pace));
            }
        }
        Next::Advance
    }

    /// Maps a record of the window: once, or once more.
    fn start(&mut self, number: u64) {
        let Some(slot) = self.window.get(number) else { return };
        let load = usize::try_from(slot.batch - self.first_load).ok().and_then(|at| self.loads.get(at));
        let Some(load) = load else { return };
        let mut values = Vec::new();
        let step = {
            let record = load.batch.record(slot.index);
            self.mapping.chain.start(&record, &mut |value| values.push(value))
        };
        match step {
            Step::Later(call) => self.busy.push(Busy::mapping(number, call)),
            Step::Done(result) => self.attempted(number, result.map(|()| values)),
        }
    }

    /// Ends the records at the front of the window that are done. Whether the draft is to be sent: it is full, or a batch has been
    /// mapped and nothing waits.
    fn end_done(&mut self) -> bool {
        loop {
            self.retire();
            match self.window.front() {
                Some(slot) if slot.done.is_some() && self.draft.is_full_for(slot.offset) => return true,
                Some(_) => {}
                None => return !self.draft.mapped.is_empty(),
            }
            match self.window.pop_done() {
                Some(done) => self.end(done),
                None => return false,
            }
        }
    }

    fn end(&mut self, Done { offset, bytes, index, result }: Done<C::Out>) {
        let Self { mapping, input, loads, draft, .. } = self;
        draft.begin_at(offset, bytes);
        let mark = draft.rows.len();
        let unknown;
        // The batches before it are retired: it is of the first.
        let record = match loads.front() {
            Some(load) => load.batch.record(index),
            None => {
                let partition = &input.assignment.partition;
                unknown = OwnedRecord::new(partition.shared_topic().clone(), partition.partition(), offset);
                unknown.as_record()
            }
        };
        let result = result.map(|values| values.into_iter().for_each(|row| draft.push(row, &record)));
        draft.end(mark, result, &mapping.reduce_stage, || record.to_owned());
    }

    /// Frees the batches whose records have all ended.
    fn retire(&mut self) {
        while let Some(load) = self.loads.front() {
            let waits = self.window.front().is_some_and(|slot| slot.batch == self.first_load);
            if waits || !load.is_taken() {
                return;
            }
            self.first_load += 1;
            if let Some(Load { unmapped, log_end, .. }) = self.loads.pop_front() {
                self.draft.mapped.push(unmapped);
                self.draft.log_end = log_end.or(self.draft.log_end);
            }
            let others: usize = self.loads.iter().map(|load| load.bytes).sum();
            self.draft.charged = self.charge.as_ref().map_or(0, |held| held.bytes().saturating_sub(others));
        }
    }

    /// The number of the batch that records are taken from.
    fn last_load(&self) -> u64 {
        self.first_load + self.loads.len().saturating_sub(1) as u64
    }

    /// Sends the draft, if it covers anything.
    async fn send(&mut self) -> Result<(), Error> {
        self.flush_at = None;
        let draft = std::mem::replace(&mut self.draft, self.mapping.draft());
        let charge = self.charge.as_mut().map(|held| held.split(draft.charged));
        let log_end = draft.log_end;
        match (draft.range, charge) {
            (Some(range), Some(charge)) => self.send_draft(draft, range, charge).await?,
            (Some(range), None) => {
                let what = format!("{range:?} of {} are charged to nobody", self.input.assignment.partition);
                return Err(Error::Internal { what });
            }
            (None, _) => {}
        }
        if let Some(offset) = log_end {
            let epoch = self.input.assignment.id;
            // The ledger is gone only when the consumer has ended.
            let _ = self.input.ledger.send(LedgerEntry::Ended { epoch, offset });
        }
        Ok(())
    }
}

/// Maps records of a batch, up to `end`, to the first that has to wait, or until the draft is full. Returns the number of records
/// that are taken from the batch, and how the last one waits.
fn run<'a, C, R>(
    mapping: &'a Mapping<C, R>,
    (load, end): (&Load, usize),
    next: &mut i64,
    draft: &mut Draft<R>,
) -> (usize, Option<Step<'a, C::Out>>)
where
    C: for<'r> Chain<In<'r> = &'r Record<'r>>,
    R: Rows<Item = C::Out>,
{
    for index in load.taken..end {
        let record = load.batch.record(index);
        if record.offset < *next {
            continue;
        }
        if draft.is_full_for(record.offset) {
            return (index, None);
        }
        *next = record.offset + 1;
        let mark = draft.rows.len();
        draft.begin(&record);
        match mapping.chain.start(&record, &mut |row| draft.push(row, &record)) {
            Step::Done(Ok(())) => draft.end(mark, Ok(()), &mapping.reduce_stage, || record.to_owned()),
            Step::Done(Err(failed)) if !failed.is_retryable() => {
                draft.end(mark, Err(failed), &mapping.reduce_stage, || record.to_owned());
            }
            waits => {
                draft.truncate(mark);
                return (index + 1, Some(waits));
            }
        }
    }
    (end, None)
}

/// Between two records: whether something else comes first than the one at `offset`.
fn look(pace: &mut Pace, input: &PartitionInput, offset: i64) -> Next {
    if input.stop.is_cancelled() {
        return Next::End;
    }
    match pace.look(Instant::now()) {
        Look::Over => Next::Yield,
        Look::On(now) => {
            input.pulse.mapping(offset, now);
            Next::Advance
        }
    }
}

/// The record at a place of a batch, on its way into the window.
fn slot<T>(record: &Record<'_>, (batch, index): (u64, usize), by_key: bool, pace: &Pace) -> Slot<T> {
    let key = record.key.filter(|_| by_key).map(|key| {
        // Without a random seed: the order of events is the same in each run.
        let mut hasher = DefaultHasher::new();
        hasher.write(key);
        hasher.finish()
    });
    let (offset, bytes, attempts) = (record.offset, source_bytes(record), Attempts::new(pace.now()));
    Slot { offset, bytes, batch, index, key, attempts, rests: false, done: None }
}
