//! Single parts of the graph, for the micro-benchmark (`benches/parts.rs`) and the test that counts
//! allocations (`tests/allocations.rs`). Not part of the API.

use std::sync::Arc;
#[cfg(feature = "metrics")]
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{BoxError, Error};
use crate::graph::assignment::id::{Assignment, AssignmentId};
use crate::graph::assignment::states::AssignmentStates;
use crate::graph::build::{Stages, start_stages};
use crate::graph::claims::tracked_rows::Origin;
use crate::graph::commit::ledger::{LedgerEntry, LedgerEvent};
use crate::graph::commit::offset_tracker::{OffsetRange, OffsetTracker};
use crate::graph::context::StageContext;
use crate::graph::fetch::routes::Admitted;
use crate::graph::map::PartitionInput;
use crate::graph::memory::budget::Budget;
use crate::graph::reduce::batch::OpenBatch;
use crate::member::{RECORD_OVERHEAD, RecordBatch};
#[cfg(feature = "metrics")]
use crate::metrics::{AttemptOutcome, FlushCause, PartitionMeter, Phase, Recorder, StageRecorder};
use crate::record::{OwnedRecord, Record, TopicPartition};
use crate::reducer::{Attempt, BatchOptions, Chunk, Delivered, Delivery, DeliveryError, Reducer};
use crate::stats::Counters;
use crate::strategy::IntoPipeline;
use crate::util::ordered_watch;

/// Observes `ranges` ranges of offsets and finishes every other one first, then the rest. Returns
/// the watermark.
pub fn track(ranges: i64) -> Option<i64> {
    let (mut tracker, now) = (OffsetTracker::default(), Instant::now());
    let range = |n: i64| OffsetRange::new(n * 1_000, n * 1_000 + 999);
    for n in 0..ranges {
        tracker.observe(range(n), now).ok()?;
    }
    for n in (1..ranges).step_by(2).chain((0..ranges).step_by(2)) {
        tracker.finish(range(n)).ok()?;
    }
    tracker.watermark()
}

/// Checks for each of `chunks` chunks of `rows` rows whether the open batch has room for it and is
/// due. Returns the number of batches.
pub fn batch(chunks: usize, rows: usize) -> usize {
    let options = BatchOptions::default().with_max_rows(32 * rows);
    let (mut open, mut batches, now) = (OpenBatch::default(), 0, Instant::now());
    let chunk = vec![[0u8; 16]; rows];
    for _ in 0..chunks {
        if open.room(&chunk, &options) < rows || open.due_at(options.max_age).is_some_and(|due| due < now) {
            open = OpenBatch::default();
        }
        open.size.add(&chunk);
        open.add(rows, Origin::of_batch(Vec::new()), now);
        if open.is_full(&options) {
            (open, batches) = (OpenBatch::default(), batches + 1);
        }
    }
    batches
}

/// A reducer that drops its rows, in batches of a given size.
#[derive(Debug)]
pub struct Discard<T> {
    rows: Vec<T>,
    max_rows: usize,
}

impl<T> Discard<T> {
    /// Batches of `max_rows` rows.
    pub fn new(max_rows: usize) -> Self {
        Self { rows: Vec::new(), max_rows }
    }
}

#[async_trait]
impl<T: Send + Sync + 'static> Reducer for Discard<T> {
    type Rows = Vec<T>;
    type Output = ();

    fn options(&self) -> BatchOptions {
        BatchOptions::default().with_max_rows(self.max_rows).with_max_bytes(usize::MAX)
    }

    fn new_rows(&self) -> Vec<T> {
        Vec::new()
    }

    fn accept(&mut self, mut chunk: Chunk<Vec<T>>) -> Result<(), BoxError> {
        self.rows.append(&mut chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        self.rows.clear();
        Ok(Box::new(Discarded))
    }
}

struct Discarded;

#[async_trait]
impl Delivery for Discarded {
    type Output = ();

    async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
        Ok(Delivered::new(()))
    }
}

/// A partition's task and the stages after it, on a single-threaded runtime. The ledger is read
/// here.
#[allow(missing_debug_implementations, reason = "holds a runtime")]
pub struct Handover {
    runtime: Runtime,
    batches: mpsc::UnboundedSender<Admitted>,
    ledger: mpsc::UnboundedReceiver<LedgerEntry>,
    budget: Arc<Budget>,
    records: Arc<[OwnedRecord]>,
    next: i64,
    _flow: ordered_watch::Sender<AssignmentStates>,
    _stages: Stages,
}

impl Handover {
    /// Chunks of `records` records of 200 bytes, through `strategy`.
    ///
    /// # Errors
    /// The reason why the consumer cannot start.
    pub fn new(strategy: impl IntoPipeline, records: usize) -> Result<Self, Error> {
        Self::start(strategy, records, Arc::default())
    }

    /// The same with metrics.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    #[cfg(feature = "metrics")]
    pub fn with_metrics(strategy: impl IntoPipeline, records: usize) -> Result<Self, Error> {
        Self::start(strategy, records, Arc::new(Counters::with_metrics(Recorder::recording())))
    }

    fn start(strategy: impl IntoPipeline, records: usize, counters: Arc<Counters>) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| Error::Config(error.to_string()))?;
        let (flow, flow_receiver) = ordered_watch::channel(AssignmentStates::default());
        let budget = Budget::new(64 << 20);
        let context = StageContext {
            assignments: flow_receiver,
            board: Arc::default(),
            budget: budget.clone(),
            counters,
            exactly_once: false,
            seed: 1,
            records: None,
            failures: Arc::default(),
        };
        let stages = runtime.block_on(start_stages(strategy.into_pipeline(), context))?;
        let (sender, batches) = mpsc::unbounded_channel();
        let (ledger, entries) = mpsc::unbounded_channel();
        let assignment = Arc::new(Assignment { partition: TopicPartition::new("t", 0), id: AssignmentId(1) });
        let (stop, activity, next) = (CancellationToken::new(), Arc::default(), 0);
        let input = PartitionInput { assignment, batches, stop, ledger, activity, next };
        runtime.spawn(stages.map.clone().run_partition(input));
        let record = OwnedRecord::new("t", 0, 0).with_payload(vec![b'x'; 200]);
        let records = vec![record; records].into();
        Ok(Self {
            runtime,
            batches: sender,
            ledger: entries,
            budget,
            records,
            next,
            _flow: flow,
            _stages: stages,
        })
    }

    /// Hands over `chunks` chunks and waits until all their records are finished. So the strategy's
    /// last batch has to end with the last chunk.
    pub fn run(&mut self, chunks: usize) {
        let size = i64::try_from(self.records.len()).unwrap_or(i64::MAX);
        for _ in 0..chunks {
            let bytes = self.records.len() * (200 + RECORD_OVERHEAD);
            let (charge, backlog) = (self.budget.charge(bytes), self.budget.backlogs().backlog());
            let batch = Box::new(Batch { records: self.records.clone(), first: self.next });
            self.next += size;
            let unmapped = self.budget.unmapped(&backlog, bytes);
            // The task ends with this value.
            let _ = self.batches.send(Admitted { batch, charge, unmapped, log_end: None, hand_off: None });
        }
        let (ledger, end) = (&mut self.ledger, self.next);
        self.runtime.block_on(async {
            while let Some(entry) = ledger.recv().await {
                let LedgerEntry::Records { event: LedgerEvent::Finished, ranges, .. } = entry else {
                    continue;
                };
                if ranges.iter().any(|range| range.last + 1 == end) {
                    return;
                }
            }
        });
    }
}

/// What the metrics record of one batch on its way.
#[cfg(feature = "metrics")]
#[derive(Debug)]
pub struct Instruments {
    recorder: Recorder,
    stage: StageRecorder,
    meter: PartitionMeter,
    records: Arc<[OwnedRecord]>,
    next: i64,
}

#[cfg(feature = "metrics")]
impl Instruments {
    /// Polls of `records` records, with another timestamp every `each` records.
    pub fn new(records: usize, each: usize) -> Self {
        let recorder = Recorder::recording();
        let (stage, meter) =
            (recorder.stage("reduce 1"), recorder.partition(&TopicPartition::new("t", 0), 1, || 0));
        let record = |at: usize| {
            let millis = i64::try_from(at / each).unwrap_or(0);
            OwnedRecord::new("t", 0, 0).with_timestamp_millis(millis)
        };
        Self { recorder, stage, meter, records: (0..records).map(record).collect(), next: 0 }
    }

    /// What is recorded of a poll that is one batch: fetched, mapped, reduced, delivered, finished.
    pub fn record(&mut self) {
        drop(self.recorder.phase(Phase::MemoryWait));
        let batch = Batch { records: self.records.clone(), first: self.next };
        self.meter.received(&batch);
        self.next += i64::try_from(self.records.len()).unwrap_or(0);
        // The map task is woken, sends its rows, and looks for another batch.
        (0..3).for_each(|_| drop(self.recorder.phase(Phase::Map)));
        // The reducer accepts the rows and closes the batch.
        (0..2).for_each(|_| drop(self.recorder.phase(Phase::Reduce)));
        self.stage.batch(FlushCause::Rows, self.records.len());
        let delivery = self.stage.delivery();
        self.stage.attempt(AttemptOutcome::Delivered, None, Duration::from_millis(1));
        drop(delivery);
        self.meter.finished_below(Some(self.next));
    }
}

/// The same records again and again, each time at new offsets.
struct Batch {
    records: Arc<[OwnedRecord]>,
    first: i64,
}

impl RecordBatch for Batch {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn offset(&self, index: usize) -> i64 {
        self.first + i64::try_from(index).unwrap_or(0)
    }

    fn record(&self, index: usize) -> Record<'_> {
        Record { offset: self.offset(index), ..self.records[index].as_record() }
    }
}
