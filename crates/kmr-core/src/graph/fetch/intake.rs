//! The intake: polls the fetch queue as the memory budget allows and hands records to map tasks.
//!
//! Invariants (numbers of ARCHITECTURE.md):
//! - One admission point (M1): every record is charged here before a map task receives it.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::hand_off::{HandOff, HandOffTimer};
use super::routes::{Admitted, EventKind, PartitionEvent, Route, Routes, Topics};
use crate::error::Error;
use crate::graph::assignment::id::Assignment;
use crate::graph::memory::budget::Budget;
use crate::member::{FetchQueue, Fetched, PartitionFailure, RECORD_OVERHEAD, RecordBatch};
use crate::metrics::{Phase, Recorder};
use crate::record::{OwnedRecord, Record};
use crate::spans;
use crate::telemetry;
use crate::util::mutants::{Mutant, enabled};

/// Most records per poll. Polls of more than some hundred are not faster.
const MAX_BATCH: usize = 1024;
/// Assumed size of a record before the first one has been polled.
const FIRST_RECORD_BYTES: usize = 16 << 10;

/// Polls in a row after which the intake waits for their hand-off. It is twice the number of polls
/// that a full queue of small records takes. If the queue still has records then, mapping does not
/// keep up with fetching, and all threads take part.
pub(crate) const MAX_HAND_OFFS: u32 = 64;

/// The first records of a batch.
struct BatchHead {
    batch: Box<dyn RecordBatch>,
    len: usize,
}

impl RecordBatch for BatchHead {
    fn len(&self) -> usize {
        self.len
    }

    fn offset(&self, index: usize) -> i64 {
        self.batch.offset(index)
    }

    fn record(&self, index: usize) -> Record<'_> {
        self.batch.record(index)
    }
}

/// A batch without records, at an offset.
struct EmptyBatch(OwnedRecord);

impl RecordBatch for EmptyBatch {
    fn len(&self) -> usize {
        0
    }

    fn offset(&self, _: usize) -> i64 {
        self.0.offset()
    }

    fn record(&self, _: usize) -> Record<'_> {
        self.0.as_record()
    }
}

/// Cuts a batch at `end`. Also returns whether no more records before `end` can follow.
fn cut_at(batch: Box<dyn RecordBatch>, end: i64) -> (Box<dyn RecordBatch>, bool) {
    let (mut low, mut high) = (0, batch.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if batch.offset(middle) < end { low = middle + 1 } else { high = middle }
    }
    let reached = low < batch.len() || low.checked_sub(1).is_some_and(|last| batch.offset(last) + 1 >= end);
    if low < batch.len() { (Box::new(BatchHead { batch, len: low }), reached) } else { (batch, reached) }
}

/// The intake's task.
pub(crate) struct Intake {
    pub(crate) queue: Box<dyn FetchQueue>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) metrics: Recorder,
    pub(crate) events: mpsc::UnboundedSender<PartitionEvent>,
    pub(crate) stop: CancellationToken,
    /// See [`MAX_HAND_OFFS`].
    pub(crate) max_hand_offs: u32,
}

impl Intake {
    /// Runs until `stop` is cancelled.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let stop = self.stop.clone();
        let (mut record_bytes, mut timer, mut hand_offs) = (FIRST_RECORD_BYTES, HandOffTimer::new(), 0);
        let mut crowded = self.budget.backlogs().crowded();
        loop {
            {
                let _waiting = self.metrics.phase(Phase::MemoryWait);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    // The backlog of one partition must not use up the budget of the others.
                    () = crowded.wait_for(|crowded| !*crowded) => {}
                }
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    () = self.budget.admit() => {}
                }
            }
            let available = usize::try_from(self.budget.available()).unwrap_or(0);
            let available = available.min(self.budget.backlogs().largest_poll());
            let (hand_off, end) = (hand_offs < self.max_hand_offs).then(HandOff::new).unzip();
            let max_records = (available / record_bytes).clamp(1, MAX_BATCH);
            if !self.poll(max_records, hand_off.as_ref(), &mut record_bytes) {
                let _waiting = self.metrics.phase(Phase::FetchWait);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    () = self.routes.wait_for_queue(self.queue.readable()) => {}
                }
                hand_offs = 0;
                continue;
            }
            hand_offs += 1;
            drop(hand_off);
            if let Some(end) = end {
                let in_time = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    in_time = timer.wait(end) => in_time,
                };
                if !in_time {
                    hand_offs = self.max_hand_offs;
                }
            }
            hand_offs = hand_offs.min(self.max_hand_offs);
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Polls the queue and sends the records to their map tasks. Returns `false` if the queue was
    /// empty.
    fn poll(&mut self, max_records: usize, hand_off: Option<&HandOff>, record_bytes: &mut usize) -> bool {
        let routes = self.routes.clone();
        let mut topics = routes.lock();
        let Some(fetched) = self.queue.poll(max_records) else { return false };
        let _span = spans::fetch(fetched.len()).entered();
        let sleeps = fetched.is_empty() && enabled(Mutant::SleepsAfterStrays);
        for fetched in fetched {
            if let Some(bytes) = self.dispatch(&mut topics, hand_off, fetched) {
                // A moving average: one large record does not throttle the next thousand small
                // ones.
                *record_bytes = (*record_bytes / 2 + bytes / 2).max(RECORD_OVERHEAD);
            }
        }
        !sleeps
    }

    fn report(&self, assignment: Arc<Assignment>, kind: EventKind) {
        let _ = self.events.send(PartitionEvent { assignment, kind });
    }

    /// Sends records to a map task. If the channel is closed, the task has just ended because its
    /// partition is being released.
    fn send(&self, route: &Route, batch: Box<dyn RecordBatch>, hand_off: Option<&HandOff>, bytes: usize) {
        let Some(end) = route.end else {
            return drop(route.task.send(self.admit(route, batch, bytes, hand_off)));
        };
        let (batch, reached) = cut_at(batch, end);
        if batch.len() > 0 {
            drop(route.task.send(self.admit(route, batch, bytes, hand_off)));
        }
        if reached {
            self.report(route.assignment.clone(), EventKind::EndReached);
        }
    }

    /// Charges a batch to the budget and to its partition's backlog.
    fn admit(
        &self,
        route: &Route,
        batch: Box<dyn RecordBatch>,
        bytes: usize,
        hand_off: Option<&HandOff>,
    ) -> Admitted {
        route.meter.received(&*batch);
        // A task with a backlog may be slow, so the intake does not wait for it.
        let hand_off = hand_off.filter(|_| route.backlog.is_empty()).cloned();
        let charged = if enabled(Mutant::ChargesNothing) { 0 } else { bytes };
        let (charge, unmapped) = (self.budget.charge(charged), self.budget.unmapped(&route.backlog, bytes));
        Admitted { batch, charge, unmapped, log_end: None, hand_off }
    }

    /// Sends the fetched items to their receivers. Returns the mean size of the records.
    fn dispatch(&self, topics: &mut Topics, hand_off: Option<&HandOff>, fetched: Fetched) -> Option<usize> {
        match fetched {
            Fetched::Records { topic, partition, bytes, batch } => {
                let records = batch.len();
                match topics.get_mut(&topic).and_then(|partitions| partitions.get_mut(&partition)) {
                    Some(route) => {
                        let last = records.checked_sub(1).map(|last| batch.offset(last));
                        route.next = last.map(|last| last + 1).or(route.next);
                        self.send(route, batch, hand_off, bytes);
                    }
                    None => telemetry::stray_records(&topic, partition, records),
                }
                Some(bytes / records.max(1))
            }
            Fetched::End { topic, partition, offset } => {
                let route = topics.get_mut(&topic).and_then(|partitions| partitions.get_mut(&partition))?;
                route.next = Some(offset);
                if !std::mem::replace(&mut route.read_to_end, true) {
                    self.report(route.assignment.clone(), EventKind::CaughtUp);
                }
                // The empty batch follows the records before it in the channel. Records that a
                // bounded run has cut off are in the log and were not observed.
                let log_end = Some(route.end.map_or(offset, |end| offset.min(end)));
                let empty = EmptyBatch(OwnedRecord::new(topic, partition, offset));
                let admitted = self.admit(route, Box::new(empty), 0, hand_off);
                drop(route.task.send(Admitted { log_end, ..admitted }));
                if route.end.is_some_and(|end| offset >= end) {
                    self.report(route.assignment.clone(), EventKind::EndReached);
                }
                None
            }
            Fetched::Failed { topic, partition, failure: failure @ PartitionFailure::Unavailable(_) } => {
                // It may be temporary. The route stays: reading may continue, and skips no record.
                let route = topics.get(&topic).and_then(|partitions| partitions.get(&partition))?;
                self.report(route.assignment.clone(), EventKind::Failed(failure));
                None
            }
            Fetched::Failed { topic, partition, failure } => {
                // librdkafka has moved past the records that it could not return. No later record
                // may be observed, or a commit would pass them: commit below unfinished (C1).
                match topics.get_mut(&topic).and_then(|partitions| partitions.remove(&partition)) {
                    Some(Route { assignment, .. }) => self.report(assignment, EventKind::Failed(failure)),
                    None => telemetry::stray_records(&topic, partition, 0),
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::time::Duration;

    use tokio::sync::Notify;
    use tokio::task::yield_now;
    use tokio::time::Instant;

    use super::*;
    use crate::graph::assignment::id::AssignmentId;
    use crate::metrics::PartitionMeter;
    use crate::record::TopicPartition;
    use crate::util::future::BoxFuture;

    /// A queue that returns one record of `t/0` per poll. A negative offset is a record that the
    /// client takes out of the queue and does not return. Like librdkafka's queue, it wakes its
    /// reader only when it was empty.
    #[derive(Clone, Default)]
    struct QueuedRecords(Arc<(Mutex<VecDeque<i64>>, Notify)>);

    impl QueuedRecords {
        fn add(&self, offsets: std::ops::Range<i64>) {
            let mut queue = self.0.0.lock().unwrap();
            if queue.is_empty() {
                self.0.1.notify_one();
            }
            queue.extend(offsets);
        }
    }

    impl FetchQueue for QueuedRecords {
        fn poll(&mut self, _: usize) -> Option<Vec<Fetched>> {
            let offset = self.0.0.lock().unwrap().pop_front()?;
            if offset < 0 {
                return Some(Vec::new());
            }
            let batch = BatchHead { batch: Box::new(EmptyBatch(OwnedRecord::new("t", 0, offset))), len: 1 };
            Some(vec![Fetched::Records {
                topic: "t".into(),
                partition: 0,
                bytes: 100,
                batch: Box::new(batch),
            }])
        }

        fn readable(&self) -> BoxFuture<'_, ()> {
            Box::pin(self.0.1.notified())
        }
    }

    /// Starts an intake of one partition. Returns the batches that its map task would receive.
    fn intake(records: QueuedRecords) -> mpsc::UnboundedReceiver<Admitted> {
        let (budget, routes) = (Budget::new(1 << 20), Arc::<Routes>::default());
        let (task, batches) = mpsc::unbounded_channel();
        let assignment = Arc::new(Assignment { partition: TopicPartition::new("t", 0), id: AssignmentId(1) });
        routes.insert(Route {
            assignment,
            task,
            backlog: budget.backlogs().backlog(),
            meter: PartitionMeter::default(),
            end: None,
            next: None,
            read_to_end: false,
        });
        let (events, stop) = (mpsc::unbounded_channel().0, CancellationToken::new());
        let queue = Box::new(records);
        let (metrics, max_hand_offs) = (Recorder::default(), MAX_HAND_OFFS);
        tokio::spawn(Intake { queue, routes, budget, metrics, events, stop, max_hand_offs }.run());
        batches
    }

    #[tokio::test(start_paused = true)]
    async fn the_intake_polls_again_after_a_hand_off_and_does_not_wait_for_a_busy_task() {
        let records = QueuedRecords::default();
        records.add(0..9);
        let mut batches = intake(records);
        let first = batches.recv().await.unwrap();
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(first.hand_off.is_some());
        assert!(batches.try_recv().is_err(), "no poll during a hand-off");
        drop(first);
        let start = Instant::now();
        let second = batches.recv().await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO, "a poll follows the hand-off at once");
        // Its task holds the hand-off. The next batches come without one, and the intake does not
        // wait.
        let third = batches.recv().await.unwrap();
        assert!((Duration::from_millis(10)..=Duration::from_millis(20)).contains(&start.elapsed()));
        assert!(second.hand_off.is_some());
        assert!(third.hand_off.is_none(), "a busy task receives batches without a hand-off");
        for _ in 3..9 {
            let batch = batches.recv().await.unwrap();
            assert!(batch.hand_off.is_none(), "a busy task receives batches without a hand-off");
        }
        assert!(start.elapsed() <= Duration::from_millis(20), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_does_not_empty_is_polled_without_hand_offs() {
        let (records, most) = (QueuedRecords::default(), i64::from(MAX_HAND_OFFS));
        records.add(0..most + 9);
        let mut batches = intake(records.clone());
        for number in 0..most + 9 {
            let batch = batches.recv().await.unwrap();
            assert_eq!(batch.hand_off.is_some(), number < most, "batch {number}");
        }
        yield_now().await;
        records.add(0..1);
        let batch = batches.recv().await.unwrap();
        assert!(batch.hand_off.is_some(), "hand-offs start again after the queue was empty");
    }

    #[tokio::test(start_paused = true)]
    async fn the_intake_polls_again_when_a_poll_returns_no_item_that_it_took() {
        let records = QueuedRecords::default();
        let mut batches = intake(records.clone());
        yield_now().await;
        records.add(-3..2);
        for offset in 0..2 {
            let batch = tokio::time::timeout(Duration::from_secs(60), batches.recv()).await;
            let batch = batch.expect("the queue still holds records").unwrap();
            assert_eq!(batch.batch.offset(0), offset);
        }
    }
}
