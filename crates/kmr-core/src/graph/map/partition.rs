//! One partition's task: takes batches, starts records, ends them in order, sends pieces.
//!
//! Records that need no waiting go straight into the builder, in a loop without a queue or an allocation. The first one that has to
//! wait opens the buffer: it and those behind it pass through there until it is empty again.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use futures_util::stream::FuturesUnordered;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::task::{block_in_place, yield_now};
use tokio::time::Instant;

use super::builder::{RowsBuilder, source_bytes};
use super::pending::Pending;
use super::phase::{MapPhase, Mapping, PartitionInput};
use super::reorder_buffer::{Done, ReorderBuffer, Slot};
use super::retry::Attempts;
use super::yielding::{ClockCheck, TimeSlice};
use crate::error::Error;
use crate::graph::commit::ledger::LedgerEntry;
use crate::graph::fetch::handoff::HandOff;
use crate::graph::fetch::routes::Admitted;
use crate::graph::memory::budget::{Charge, Unmapped};
use crate::member::RecordBatch;
use crate::record::{OwnedRecord, Record};
use crate::reducer::Rows;
use crate::stage::{Chain, Step};
use crate::util::future::BoxFuture;

impl<C, R> MapPhase for Mapping<C, R>
where
    C: for<'r> Chain<In<'r> = &'r Record<'r>>,
    R: Rows<Item = C::Out>,
{
    fn run_partition(self: Arc<Self>, input: PartitionInput) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move { Partition::new(&*self, input).run().await })
    }
}

/// A batch with records that have not ended.
struct LoadedBatch {
    batch: Box<dyn RecordBatch>,
    records: usize,
    /// What it was charged.
    bytes: usize,
    unmapped: Unmapped,
    log_end: Option<i64>,
    /// Records that were taken from it.
    taken: usize,
}

impl LoadedBatch {
    fn is_started(&self) -> bool {
        self.taken >= self.records
    }
}

/// What the task does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It goes on.
    Advance,
    /// The builder is sent.
    Send,
    /// Others get a hand_off.
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
    loaded: VecDeque<LoadedBatch>,
    /// The number of the first batch.
    first_number: u64,
    /// What the batches and the builder hold of the budget.
    charge: Option<Charge>,
    /// Held until the task waits or sends something on.
    pub(super) hand_off: Option<HandOff>,
    pub(super) buffer: ReorderBuffer<C::Out>,
    pub(super) pending: FuturesUnordered<Pending<'a, C::Out>>,
    pub(super) builder: RowsBuilder<R>,
    /// When a builder is sent that waits for the records behind it.
    pub(super) flush_at: Option<Instant>,
    pub(super) slice: TimeSlice,
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
            loaded: VecDeque::new(),
            first_number: 0,
            charge: None,
            hand_off: None,
            buffer: ReorderBuffer::new(mapping.options.concurrency),
            pending: FuturesUnordered::new(),
            builder: mapping.new_builder(),
            flush_at: None,
            slice: TimeSlice::new(),
            warned: None,
            may_offload: Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread,
        }
    }

    /// Runs until the partition stops or its input ends, or a record stops the consumer.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        let mut next = Next::Advance;
        loop {
            next = match next {
                Next::Advance if self.slice.is_slow() && self.may_offload => self.advance_off_worker().await,
                Next::Advance => self.advance(),
                Next::Wait => {
                    self.hand_off = None;
                    self.wait().await
                }
                Next::Send => {
                    self.send().await?;
                    Next::Advance
                }
                Next::Yield => {
                    self.hand_off = None;
                    if self.is_overdue() {
                        self.send().await?;
                    }
                    yield_now().await;
                    Next::Advance
                }
                Next::End => {
                    // What is not mapped was never observed.
                    self.pending.clear();
                    return self.send().await;
                }
            };
        }
    }

    /// Goes on off the runtime's worker threads: the other tasks of this one are taken over by another.
    async fn advance_off_worker(&mut self) -> Next {
        self.hand_off = None;
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
            if self.end_finished() {
                return Next::Send;
            }
            let next = if self.buffer.is_empty() { self.map_in_place() } else { self.start_next() };
            if next != Next::Advance {
                return next;
            }
        }
    }

    /// Takes the next batch, if there is one already.
    fn next_batch(&mut self) -> Next {
        match self.input.batches.try_recv() {
            Ok(admitted) => self.load(admitted),
            Err(TryRecvError::Empty) => return Next::Wait,
            Err(TryRecvError::Disconnected) => {
                self.input_ended = true;
                return if self.buffer.is_empty() { Next::End } else { Next::Wait };
            }
        }
        Next::Advance
    }

    /// Puts a batch behind those that are there.
    pub(super) fn load(&mut self, Admitted { batch, charge, unmapped, log_end, hand_off }: Admitted) {
        let records = batch.len();
        // Off the worker threads there is nobody to pass it on.
        self.hand_off = hand_off.filter(|_| !self.slice.is_slow());
        self.loaded.push_back(LoadedBatch {
            batch,
            records,
            bytes: charge.bytes(),
            unmapped,
            log_end,
            taken: 0,
        });
        match &mut self.charge {
            Some(held) => held.absorb(charge),
            None => self.charge = Some(charge),
        }
    }

    /// Whether there are records that have not been taken yet.
    pub(super) fn has_next(&self) -> bool {
        self.loaded.back().is_some_and(|load| !load.is_started())
    }

    /// Maps records straight into the builder, up to the end of the batch or the first that has to wait.
    fn map_in_place(&mut self) -> Next {
        if !self.has_next() {
            return self.next_batch();
        }
        let number = self.last_number();
        let Self { mapping, input, loaded, buffer, pending, builder, slice, .. } = self;
        let mapping: &'a Mapping<C, R> = mapping;
        let Some(load) = loaded.back_mut() else { return Next::Advance };
        if load.taken == 0 {
            builder.reserve(load.records);
        }
        while !load.is_started() {
            let offset = load.batch.offset(load.taken);
            if builder.is_full_for(offset) {
                return Next::Send;
            }
            if slice.is_due() {
                let next = look(slice, input, offset);
                if next != Next::Advance {
                    return next;
                }
            }
            let end = load.records.min(load.taken + slice.allowance());
            let (taken, waits) = run(mapping, (load, end), &mut input.next, builder);
            slice.spend(taken - load.taken);
            load.taken = taken;
            let Some(waits) = waits else { continue };
            let index = taken - 1;
            let record = load.batch.record(index);
            let number = buffer.push_started(slot(&record, (number, index), buffer.is_by_key(), slice));
            match waits {
                Step::Later(call) => pending.push(Pending::mapping(number, call)),
                Step::Done(result) => self.attempted(number, result.map(|()| Vec::new())),
            }
            return Next::Advance;
        }
        Next::Advance
    }

    /// Starts the next record that may start, or takes one into the buffer.
    fn start_next(&mut self) -> Next {
        if let Some(number) = self.buffer.next_ready() {
            let offset = self.buffer.get(number).map_or(self.input.next, |slot| slot.offset);
            if self.slice.is_due() {
                let next = look(&mut self.slice, &self.input, offset);
                if next != Next::Advance {
                    return next;
                }
            }
            self.slice.spend(1);
            self.buffer.start_next();
            self.start(number);
            return Next::Advance;
        }
        if !self.buffer.has_room() {
            return Next::Wait;
        }
        if !self.has_next() {
            return self.next_batch();
        }
        let number = self.last_number();
        if let Some(load) = self.loaded.back_mut() {
            let index = load.taken;
            load.taken += 1;
            let record = load.batch.record(index);
            if record.offset >= self.input.next {
                self.input.next = record.offset + 1;
                self.buffer.push(slot(&record, (number, index), self.buffer.is_by_key(), &self.slice));
            }
        }
        Next::Advance
    }

    /// Maps a record of the buffer: once, or once more.
    fn start(&mut self, number: u64) {
        let Some(slot) = self.buffer.get(number) else { return };
        let load = usize::try_from(slot.batch - self.first_number).ok().and_then(|at| self.loaded.get(at));
        let Some(load) = load else { return };
        let mut values = Vec::new();
        let step = {
            let record = load.batch.record(slot.index);
            self.mapping.chain.start(&record, &mut |value| values.push(value))
        };
        match step {
            Step::Later(call) => self.pending.push(Pending::mapping(number, call)),
            Step::Done(result) => self.attempted(number, result.map(|()| values)),
        }
    }

    /// Ends the records at the front of the buffer that are done. Whether the builder is to be sent: it is full, or a batch has been
    /// mapped and nothing waits.
    fn end_finished(&mut self) -> bool {
        loop {
            self.retire();
            match self.buffer.front() {
                Some(slot) if slot.done.is_some() && self.builder.is_full_for(slot.offset) => return true,
                Some(_) => {}
                None => return !self.builder.mapped.is_empty(),
            }
            match self.buffer.pop_done() {
                Some(done) => self.end(done),
                None => return false,
            }
        }
    }

    fn end(&mut self, Done { offset, bytes, index, result }: Done<C::Out>) {
        let Self { mapping, input, loaded, builder, .. } = self;
        builder.start_at(offset, bytes);
        let mark = builder.rows.len();
        let unknown;
        // The batches before it are retired: it is of the first.
        let record = match loaded.front() {
            Some(load) => load.batch.record(index),
            None => {
                let partition = &input.assignment.partition;
                unknown = OwnedRecord::new(partition.shared_topic().clone(), partition.partition(), offset);
                unknown.as_record()
            }
        };
        let result = result.map(|values| values.into_iter().for_each(|row| builder.push(row, &record)));
        builder.end(mark, result, &mapping.reduce_stage, || record.to_owned());
    }

    /// Frees the batches whose records have all ended.
    fn retire(&mut self) {
        while let Some(load) = self.loaded.front() {
            let waits = self.buffer.front().is_some_and(|slot| slot.batch == self.first_number);
            if waits || !load.is_started() {
                return;
            }
            self.first_number += 1;
            if let Some(LoadedBatch { unmapped, log_end, .. }) = self.loaded.pop_front() {
                self.builder.mapped.push(unmapped);
                self.builder.log_end = log_end.or(self.builder.log_end);
            }
            let others: usize = self.loaded.iter().map(|load| load.bytes).sum();
            self.builder.charged = self.charge.as_ref().map_or(0, |held| held.bytes().saturating_sub(others));
        }
    }

    /// The number of the batch that records are taken from.
    fn last_number(&self) -> u64 {
        self.first_number + self.loaded.len().saturating_sub(1) as u64
    }

    /// Sends the builder, if it covers anything.
    async fn send(&mut self) -> Result<(), Error> {
        self.flush_at = None;
        let builder = std::mem::replace(&mut self.builder, self.mapping.new_builder());
        let charge = self.charge.as_mut().map(|held| held.split(builder.charged));
        let log_end = builder.log_end;
        match (builder.range, charge) {
            (Some(range), Some(charge)) => self.send_rows(builder, range, charge).await?,
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

/// Maps records of a batch, up to `end`, to the first that has to wait, or until the builder is full. Returns the number of records
/// that are taken from the batch, and how the last one waits.
fn run<'a, C, R>(
    mapping: &'a Mapping<C, R>,
    (load, end): (&LoadedBatch, usize),
    next: &mut i64,
    builder: &mut RowsBuilder<R>,
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
        if builder.is_full_for(record.offset) {
            return (index, None);
        }
        *next = record.offset + 1;
        let mark = builder.rows.len();
        builder.start(&record);
        match mapping.chain.start(&record, &mut |row| builder.push(row, &record)) {
            Step::Done(Ok(())) => builder.end(mark, Ok(()), &mapping.reduce_stage, || record.to_owned()),
            Step::Done(Err(failed)) if !failed.is_retryable() => {
                builder.end(mark, Err(failed), &mapping.reduce_stage, || record.to_owned());
            }
            waits => {
                builder.truncate(mark);
                return (index + 1, Some(waits));
            }
        }
    }
    (end, None)
}

/// Between two records: whether something else comes first than the one at `offset`.
fn look(slice: &mut TimeSlice, input: &PartitionInput, offset: i64) -> Next {
    if input.stop.is_cancelled() {
        return Next::End;
    }
    match slice.look(Instant::now()) {
        ClockCheck::Over => Next::Yield,
        ClockCheck::On(now) => {
            input.activity.mapping(offset, now);
            Next::Advance
        }
    }
}

/// The record at a place of a batch, on its way into the buffer.
fn slot<T>(record: &Record<'_>, (batch, index): (u64, usize), by_key: bool, slice: &TimeSlice) -> Slot<T> {
    let key = record.key.filter(|_| by_key).map(|key| {
        // Without a random seed: the order of events is the same in each run.
        let mut hasher = DefaultHasher::new();
        hasher.write(key);
        hasher.finish()
    });
    let (offset, bytes, attempts) = (record.offset, source_bytes(record), Attempts::new(slice.now()));
    Slot { offset, bytes, batch, index, key, attempts, waits_for_retry: false, done: None }
}
