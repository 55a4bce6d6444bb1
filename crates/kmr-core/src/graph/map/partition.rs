//! The task of one partition: maps the records of its batches and sends their rows in order.
//!
//! A record has to wait if a map stage is async and not ready at once, or if it asks for a retry.
//!
//! Records that do not have to wait are mapped straight into the builder, in a loop without a queue
//! or an allocation. The first record that has to wait enters the reorder buffer. So do the records
//! after it, until the buffer is empty again.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream::FuturesUnordered;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::task::{block_in_place, yield_now};
use tokio::time::Instant;

use super::builder::RowsBuilder;
use super::loaded::{LoadedBatch, map_up_to, slot};
use super::pending::Pending;
use super::phase::{MapPhase, Mapping, PartitionInput};
use super::reorder_buffer::{Done, ReorderBuffer};
use super::yielding::{ClockCheck, TimeSlice};
use crate::error::Error;
use crate::graph::commit::ledger::LedgerEntry;
use crate::graph::fetch::hand_off::HandOff;
use crate::graph::fetch::routes::Admitted;
use crate::graph::memory::budget::Charge;
use crate::metrics::Phase;
use crate::record::{OwnedRecord, Record};
use crate::reducer::Rows;
use crate::spans;
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

/// What the task does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It continues.
    Advance,
    /// It sends the rows of the builder.
    Send,
    /// It yields to other tasks.
    Yield,
    /// It waits until something happens.
    Wait,
    /// The partition stops, or its input has ended and every record is mapped.
    End,
}

/// The task of one partition.
pub(super) struct Partition<'a, C: Chain, R: Rows> {
    pub(super) mapping: &'a Mapping<C, R>,
    pub(super) input: PartitionInput,
    pub(super) input_ended: bool,
    /// Batches in order. The next record to start is in the last one, the next to end in the first.
    loaded: VecDeque<LoadedBatch>,
    /// The number of the first batch in `loaded`. Batches are numbered from 0.
    first_batch: u64,
    /// The charge of the batches and the builder.
    charge: Option<Charge>,
    /// Held until the task waits or sends rows.
    pub(super) hand_off: Option<HandOff>,
    pub(super) buffer: ReorderBuffer<C::Out>,
    pub(super) pending: FuturesUnordered<Pending<'a, C::Out>>,
    pub(super) builder: RowsBuilder<R>,
    /// When the builder's rows are sent, even if records after them are not mapped yet.
    pub(super) flush_at: Option<Instant>,
    pub(super) slice: TimeSlice,
    /// The last warning about retries.
    pub(super) warned: Option<Instant>,
    /// Whether slow mappers may leave the worker threads. Only a multi-thread runtime allows it.
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
            first_batch: 0,
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

    /// Runs until the partition stops, its input ends or a record stops the consumer.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        let mut next = Next::Advance;
        loop {
            next = match next {
                Next::Advance if self.slice.is_slow() && self.may_offload => self.advance_off_worker().await,
                Next::Advance => self.advance_timed(),
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
                    // Pending records were never observed, so dropping them needs no report.
                    self.pending.clear();
                    return self.send().await;
                }
            };
        }
    }

    /// Continues outside the runtime's worker threads. Another thread takes over the other tasks of
    /// this worker.
    async fn advance_off_worker(&mut self) -> Next {
        self.hand_off = None;
        let permit = tokio::select! {
            biased;
            () = self.input.stop.cancelled() => return Next::End,
            permit = self.mapping.offloads.acquire() => permit,
        };
        let next = block_in_place(|| self.advance_timed());
        drop(permit);
        next
    }

    /// [`advance`](Self::advance), and records the time that it takes.
    fn advance_timed(&mut self) -> Next {
        let _span = spans::map(&self.input.assignment.partition).entered();
        let _timer = self.mapping.counters.metrics.phase(Phase::Map);
        self.advance()
    }

    /// Does all work that needs no waiting.
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

    /// Receives the next batch, if there is one already.
    fn next_batch(&mut self) -> Next {
        match self.input.batches.try_recv() {
            Ok(admitted) => self.add_batch(admitted),
            Err(TryRecvError::Empty) => return Next::Wait,
            Err(TryRecvError::Disconnected) => {
                self.input_ended = true;
                return if self.buffer.is_empty() { Next::End } else { Next::Wait };
            }
        }
        Next::Advance
    }

    /// Adds a batch as the last one.
    pub(super) fn add_batch(&mut self, Admitted { batch, charge, unmapped, log_end, hand_off }: Admitted) {
        let records = batch.len();
        // A task outside the worker threads is slow, so the intake does not wait for it.
        self.hand_off = hand_off.filter(|_| !self.slice.is_slow());
        self.loaded.push_back(LoadedBatch {
            batch,
            records,
            bytes: charge.bytes(),
            unmapped,
            log_end,
            started: 0,
        });
        match &mut self.charge {
            Some(held) => held.absorb(charge),
            None => self.charge = Some(charge),
        }
    }

    /// Whether there are records that have not started.
    pub(super) fn has_next(&self) -> bool {
        self.loaded.back().is_some_and(|load| !load.all_started())
    }

    /// Maps records straight into the builder, up to the end of the batch or the first record that
    /// has to wait.
    fn map_in_place(&mut self) -> Next {
        if !self.has_next() {
            return self.next_batch();
        }
        let batch_number = self.last_batch();
        let Self { mapping, input, loaded, buffer, pending, builder, slice, .. } = self;
        let mapping: &'a Mapping<C, R> = mapping;
        let Some(load) = loaded.back_mut() else { return Next::Advance };
        if load.started == 0 {
            builder.reserve(load.records);
        }
        while !load.all_started() {
            let offset = load.batch.offset(load.started);
            if builder.is_full_for(offset) {
                return Next::Send;
            }
            if slice.is_due() {
                let next = check_clock(slice, input, offset);
                if next != Next::Advance {
                    return next;
                }
            }
            let end = load.records.min(load.started + slice.allowance());
            let (started, waiting) = map_up_to(end, load, mapping, &mut input.next, builder);
            slice.spend(started - load.started);
            load.started = started;
            let Some(step) = waiting else { continue };
            let index = started - 1;
            let record = load.batch.record(index);
            let number = buffer.push_started(slot(&record, batch_number, index, buffer.is_by_key(), slice));
            match step {
                Step::Later(call) => pending.push(Pending::mapping(number, call)),
                Step::Done(result) => self.attempted(number, result.map(|()| Vec::new())),
            }
            return Next::Advance;
        }
        Next::Advance
    }

    /// Starts the next buffered record that is ready. If there is none, adds a record to the
    /// buffer.
    fn start_next(&mut self) -> Next {
        if let Some(number) = self.buffer.next_ready() {
            let offset = self.buffer.get(number).map_or(self.input.next, |slot| slot.offset);
            if self.slice.is_due() {
                let next = check_clock(&mut self.slice, &self.input, offset);
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
        let batch_number = self.last_batch();
        if let Some(load) = self.loaded.back_mut() {
            let index = load.started;
            load.started += 1;
            let record = load.batch.record(index);
            if record.offset >= self.input.next {
                self.input.next = record.offset + 1;
                let slot = slot(&record, batch_number, index, self.buffer.is_by_key(), &self.slice);
                self.buffer.push(slot);
            }
        }
        Next::Advance
    }

    /// Starts an attempt to map a record of the buffer.
    fn start(&mut self, number: u64) {
        let Some(slot) = self.buffer.get(number) else { return };
        let load = usize::try_from(slot.batch - self.first_batch).ok().and_then(|at| self.loaded.get(at));
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

    /// Moves the rows of finished records from the front of the buffer into the builder. Returns
    /// whether the rows are to be sent: the builder is full, or a batch is mapped and the buffer is
    /// empty.
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

    /// Moves the rows of one record, or its failure, into the builder.
    fn end(&mut self, Done { offset, bytes, index, result }: Done<C::Out>) {
        let Self { mapping, input, loaded, builder, .. } = self;
        builder.start_at(offset, bytes);
        let rows_before = builder.rows.len();
        let placeholder;
        // All earlier batches are retired, so the record belongs to the first one.
        let record = match loaded.front() {
            Some(load) => load.batch.record(index),
            None => {
                let partition = &input.assignment.partition;
                placeholder =
                    OwnedRecord::new(partition.shared_topic().clone(), partition.partition(), offset);
                placeholder.as_record()
            }
        };
        let result = result.map(|values| values.into_iter().for_each(|row| builder.push(row, &record)));
        builder.end(rows_before, result, &mapping.reduce_stage, || record.to_owned());
    }

    /// Drops the batches whose records have all ended.
    fn retire(&mut self) {
        while let Some(load) = self.loaded.front() {
            let has_buffered = self.buffer.front().is_some_and(|slot| slot.batch == self.first_batch);
            if has_buffered || !load.all_started() {
                return;
            }
            self.first_batch += 1;
            if let Some(LoadedBatch { unmapped, log_end, .. }) = self.loaded.pop_front() {
                self.builder.mapped.push(unmapped);
                self.builder.log_end = log_end.or(self.builder.log_end);
            }
            let still_loaded: usize = self.loaded.iter().map(|load| load.bytes).sum();
            self.builder.charged =
                self.charge.as_ref().map_or(0, |held| held.bytes().saturating_sub(still_loaded));
        }
    }

    /// The number of the last batch in `loaded`.
    fn last_batch(&self) -> u64 {
        self.first_batch + self.loaded.len().saturating_sub(1) as u64
    }

    /// Sends the rows of the builder, if it holds any record.
    async fn send(&mut self) -> Result<(), Error> {
        self.flush_at = None;
        let builder = std::mem::replace(&mut self.builder, self.mapping.new_builder());
        let charge = self.charge.as_mut().map(|held| held.split(builder.charged));
        let log_end = builder.log_end;
        match (builder.range, charge) {
            (Some(range), Some(charge)) => self.send_rows(builder, range, charge).await?,
            (Some(range), None) => {
                let message = format!(
                    "{range:?} of {} have no charge in the memory budget",
                    self.input.assignment.partition
                );
                return Err(Error::Internal { message });
            }
            (None, _) => {}
        }
        if let Some(offset) = log_end {
            let assignment = self.input.assignment.id;
            // The channel is closed only when the consumer has ended.
            let _ = self.input.ledger.send(LedgerEntry::ReachedEnd { assignment, offset });
        }
        Ok(())
    }
}

/// Runs between two records. Returns what to do now. [`Next::Advance`] maps the record at `offset`.
fn check_clock(slice: &mut TimeSlice, input: &PartitionInput, offset: i64) -> Next {
    if input.stop.is_cancelled() {
        return Next::End;
    }
    match slice.check(Instant::now()) {
        ClockCheck::Yield => Next::Yield,
        ClockCheck::Continue(now) => {
            input.activity.mapping(offset, now);
            Next::Advance
        }
    }
}
