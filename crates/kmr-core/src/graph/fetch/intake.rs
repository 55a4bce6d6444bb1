//! Takes records from the member's fetch queue and hands them to the tasks of their partitions, as the budget allows.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::handoff::{HandOff, Patience};
use super::routes::{Admitted, Report, Reported, Route, Routes, Topics};
use crate::error::Error;
use crate::graph::assignment::id::Assignment;
use crate::graph::memory::budget::Budget;
use crate::graph::memory::fair_share::UnmappedBytes;
use crate::member::{FetchQueue, Fetched, PartitionFailure, RECORD_OVERHEAD, RecordBatch};
use crate::record::{OwnedRecord, Record};
use crate::telemetry;

/// Records taken at once. Past some hundred nothing is gained; what one batch holds is handed over before the next.
const MAX_BATCH: usize = 1024;
/// Size of a record that is assumed before the first has been seen.
const FIRST_GUESS: usize = 16 << 10;

/// Takes in a row with the intake waiting for its turn behind each, as long as the queue does not run dry: twice what it holds of small
/// records. If more come, mapping does not keep up with fetching, and is left to all threads.
pub(crate) const TURNS: u32 = 64;

/// The first records of a batch.
struct Head {
    batch: Box<dyn RecordBatch>,
    len: usize,
}

impl RecordBatch for Head {
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

/// A batch without records, which stands at an offset.
struct NoRecords(OwnedRecord);

impl RecordBatch for NoRecords {
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

/// Cuts a batch at `end`. `true`: there is nothing more to come before it.
fn cut(batch: Box<dyn RecordBatch>, end: i64) -> (Box<dyn RecordBatch>, bool) {
    let (mut low, mut high) = (0, batch.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if batch.offset(middle) < end { low = middle + 1 } else { high = middle }
    }
    let reached = low < batch.len() || low.checked_sub(1).is_some_and(|last| batch.offset(last) + 1 >= end);
    if low < batch.len() { (Box::new(Head { batch, len: low }), reached) } else { (batch, reached) }
}

/// The intake's task.
pub(crate) struct Intake {
    pub(crate) queue: Box<dyn FetchQueue>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) reports: mpsc::UnboundedSender<Report>,
    pub(crate) stop: CancellationToken,
    /// Takes with a turn, see [`TURNS`].
    pub(crate) turns: u32,
}

impl Intake {
    /// Runs until it is told to stop.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let stop = self.stop.clone();
        let (mut record_bytes, mut patience, mut takes) = (FIRST_GUESS, Patience::new(), 0);
        let mut crowded = self.budget.backlogs().crowded();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                // One partition must not take what the others need.
                () = crowded.wait_for(|crowded| !*crowded) => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.budget.admit() => {}
            }
            let available = usize::try_from(self.budget.available()).unwrap_or(0);
            let available = available.min(self.budget.backlogs().largest_take());
            let (turn, returned) = (takes < self.turns).then(HandOff::new).unzip();
            if !self.take((available / record_bytes).clamp(1, MAX_BATCH), turn.as_ref(), &mut record_bytes) {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    () = self.queue.readable() => {}
                }
                takes = 0;
                continue;
            }
            takes += 1;
            drop(turn);
            if let Some(returned) = returned {
                let in_time = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    in_time = patience.wait(returned) => in_time,
                };
                if !in_time {
                    takes = self.turns;
                }
            }
            takes = takes.min(self.turns);
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Takes what is there and hands it over, with the turn. `false`: there was nothing.
    fn take(&mut self, max_records: usize, turn: Option<&HandOff>, record_bytes: &mut usize) -> bool {
        let routes = self.routes.clone();
        let mut topics = routes.lock();
        let fetched = self.queue.poll(max_records);
        let some = !fetched.is_empty();
        for fetched in fetched {
            if let Some(bytes) = self.hand_over(&mut topics, turn, fetched) {
                // Half old, half new: a single large record does not throttle the next thousand small ones.
                *record_bytes = (*record_bytes / 2 + bytes / 2).max(RECORD_OVERHEAD);
            }
        }
        some
    }

    fn report(&self, assignment: Arc<Assignment>, what: Reported) {
        let _ = self.reports.send(Report { assignment, what });
    }

    /// A closed channel: the partition's task has just ended, the partition is on its way out.
    fn send(&self, route: &Route, batch: Box<dyn RecordBatch>, turn: Option<&HandOff>, bytes: usize) {
        let Some(end) = route.end else {
            return drop(route.task.send(self.admitted(batch, bytes, turn, (&route.backlog, None))));
        };
        let (batch, reached) = cut(batch, end);
        if batch.len() > 0 {
            drop(route.task.send(self.admitted(batch, bytes, turn, (&route.backlog, None))));
        }
        if reached {
            self.report(route.assignment.clone(), Reported::Reached);
        }
    }

    fn admitted(
        &self,
        batch: Box<dyn RecordBatch>,
        bytes: usize,
        turn: Option<&HandOff>,
        (backlog, log_end): (&Arc<UnmappedBytes>, Option<i64>),
    ) -> Admitted {
        // A task that has something to do already may be slow: nobody waits for it.
        let turn = turn.filter(|_| backlog.is_empty()).cloned();
        let (charge, unmapped) = (self.budget.charge(bytes), self.budget.unmapped(backlog, bytes));
        Admitted { batch, charge, unmapped, log_end, turn }
    }

    /// Returns the mean size of the records.
    fn hand_over(&self, topics: &mut Topics, turn: Option<&HandOff>, fetched: Fetched) -> Option<usize> {
        match fetched {
            Fetched::Records { topic, partition, bytes, batch } => {
                let records = batch.len();
                match topics.get(&topic).and_then(|partitions| partitions.get(&partition)) {
                    Some(route) => self.send(route, batch, turn, bytes),
                    None => telemetry::stray_records(&topic, partition, records),
                }
                Some(bytes / records.max(1))
            }
            Fetched::End { topic, partition, offset } => {
                let route = topics.get(&topic).and_then(|partitions| partitions.get(&partition))?;
                // Behind the records before it. What a bounded run has cut off is there and was not observed.
                let log_end = Some(route.end.map_or(offset, |end| offset.min(end)));
                let nothing = NoRecords(OwnedRecord::new(topic, partition, offset));
                drop(route.task.send(self.admitted(Box::new(nothing), 0, turn, (&route.backlog, log_end))));
                if route.end.is_some_and(|end| offset >= end) {
                    self.report(route.assignment.clone(), Reported::Reached);
                }
                None
            }
            Fetched::Failed { topic, partition, failure: failure @ PartitionFailure::Gone(_) } => {
                // Perhaps for a moment only: it may be read on, and nothing that was there is passed.
                let route = topics.get(&topic).and_then(|partitions| partitions.get(&partition))?;
                self.report(route.assignment.clone(), Reported::Failed(failure));
                None
            }
            Fetched::Failed { topic, partition, failure } => {
                // librdkafka counts what it could not hand out as read: nothing behind it may be observed, or it would be
                // committed past (C1).
                match topics.get_mut(&topic).and_then(|partitions| partitions.remove(&partition)) {
                    Some(Route { assignment, .. }) => self.report(assignment, Reported::Failed(failure)),
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
    use crate::record::TopicPartition;
    use crate::util::future::BoxFuture;

    /// Hands out one record of `t/0` after the other.
    #[derive(Clone, Default)]
    struct Records(Arc<(Mutex<VecDeque<i64>>, Notify)>);

    impl Records {
        fn add(&self, offsets: std::ops::Range<i64>) {
            self.0.0.lock().unwrap().extend(offsets);
            self.0.1.notify_one();
        }
    }

    impl FetchQueue for Records {
        fn poll(&mut self, _: usize) -> Vec<Fetched> {
            let offset = self.0.0.lock().unwrap().pop_front();
            let fetched = |offset| {
                let batch = Head { batch: Box::new(NoRecords(OwnedRecord::new("t", 0, offset))), len: 1 };
                Fetched::Records { topic: "t".into(), partition: 0, bytes: 100, batch: Box::new(batch) }
            };
            offset.map(fetched).into_iter().collect()
        }

        fn readable(&self) -> BoxFuture<'_, ()> {
            Box::pin(self.0.1.notified())
        }
    }

    /// An intake of one partition, and what its task would get.
    fn intake(records: Records) -> mpsc::UnboundedReceiver<Admitted> {
        let (budget, routes) = (Budget::new(1 << 20), Arc::<Routes>::default());
        let (task, batches) = mpsc::unbounded_channel();
        let assignment =
            Arc::new(Assignment { partition: TopicPartition::new("t", 0), id: AssignmentId(1) });
        routes.insert(Route { assignment, task, backlog: budget.backlogs().backlog(), end: None });
        let (reports, stop) = (mpsc::unbounded_channel().0, CancellationToken::new());
        let queue = Box::new(records);
        tokio::spawn(Intake { queue, routes, budget, reports, stop, turns: TURNS }.run());
        batches
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_when_its_records_have_been_passed_on_and_does_not_wait_for_a_busy_task() {
        let records = Records::default();
        records.add(0..9);
        let mut batches = intake(records);
        let first = batches.recv().await.unwrap();
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(first.turn.is_some() && batches.try_recv().is_err(), "more was taken");
        drop(first);
        let start = Instant::now();
        let second = batches.recv().await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        // Its task keeps it: it gets the next without a turn, and nobody waits any more.
        let third = batches.recv().await.unwrap();
        assert!((Duration::from_millis(10)..=Duration::from_millis(20)).contains(&start.elapsed()));
        assert!(second.turn.is_some() && third.turn.is_none());
        for _ in 3..9 {
            assert!(batches.recv().await.unwrap().turn.is_none());
        }
        assert!(start.elapsed() <= Duration::from_millis(20), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_does_not_run_dry_is_left_to_all_threads() {
        let (records, turns) = (Records::default(), i64::from(TURNS));
        records.add(0..turns + 9);
        let mut batches = intake(records.clone());
        for number in 0..turns + 9 {
            assert_eq!(batches.recv().await.unwrap().turn.is_some(), number < turns, "{number}");
        }
        yield_now().await;
        records.add(0..1);
        assert!(batches.recv().await.unwrap().turn.is_some(), "it has run dry");
    }
}
