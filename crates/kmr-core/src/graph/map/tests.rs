//! Tests of one partition's task: its activity, its hand-offs and its settings.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::PartitionInput;
use crate::error::{BoxError, Error, Retryable};
use crate::graph::assignment::id::{Assignment, AssignmentId};
use crate::graph::assignment::states::AssignmentStates;
use crate::graph::build::{Stages, start_stages};
use crate::graph::commit::ledger::LedgerEntry;
use crate::graph::context::StageContext;
use crate::graph::fetch::hand_off::{HandOff, HandOffEnd, HandOffTimer};
use crate::graph::fetch::routes::Admitted;
use crate::graph::memory::budget::Budget;
use crate::graph::observe::activity::{Activity, ActivityReading};
use crate::record::{OwnedRecord, Record, TopicPartition};
use crate::strategy::{IntoPipeline, Strategy};
use crate::test_records::OwnedBatch;
use crate::test_reducer::{Behaviour, Collect};
use crate::util::ordered_watch;

/// A partition's task, and the parts that it needs.
struct Task {
    batches: mpsc::UnboundedSender<Admitted>,
    activity: Arc<Activity>,
    budget: Arc<Budget>,
    _states: ordered_watch::Sender<AssignmentStates>,
    _ledger: mpsc::UnboundedReceiver<LedgerEntry>,
    _stages: Stages,
    _task: JoinHandle<Result<(), Error>>,
}

async fn start(strategy: impl IntoPipeline) -> Result<Task, Error> {
    let (states, assignments) = ordered_watch::channel(AssignmentStates::default());
    let budget = Budget::new(1 << 20);
    let context = StageContext {
        assignments,
        board: Arc::default(),
        budget: budget.clone(),
        counters: Arc::default(),
        exactly_once: false,
        seed: 1,
        records: None,
        failures: Arc::default(),
    };
    let stages = start_stages(strategy.into_pipeline(), context).await?;
    let (sender, batches) = mpsc::unbounded_channel();
    let (ledger, _ledger) = mpsc::unbounded_channel();
    let activity = Arc::<Activity>::default();
    let assignment = Arc::new(Assignment { partition: TopicPartition::new("t", 0), id: AssignmentId(1) });
    let (stop, next) = (CancellationToken::new(), 0);
    let input = PartitionInput { assignment, batches, stop, ledger, activity: activity.clone(), next };
    let _task = tokio::spawn(stages.map.clone().run_partition(input));
    Ok(Task { batches: sender, activity, budget, _states: states, _ledger, _stages: stages, _task })
}

impl Task {
    fn fetch(&self, offsets: impl IntoIterator<Item = i64>) {
        drop(self.fetch_with_hand_off(offsets));
    }

    /// The same, with a hand-off. Returns its end.
    fn fetch_with_hand_off(&self, offsets: impl IntoIterator<Item = i64>) -> HandOffEnd {
        let records = offsets.into_iter().map(|offset| OwnedRecord::new("t", 0, offset)).collect();
        let (charge, unmapped) =
            (self.budget.charge(1000), self.budget.unmapped(&self.budget.backlogs().backlog(), 1000));
        let (hand_off, end) = HandOff::new();
        let (batch, hand_off) = (Box::new(OwnedBatch(records)), Some(hand_off));
        self.batches.send(Admitted { batch, charge, unmapped, log_end: None, hand_off }).ok().unwrap();
        end
    }

    async fn pulse_after(&self, wait: Duration) -> ActivityReading {
        sleep(wait).await;
        self.activity.read()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn the_activity_shows_what_the_task_waits_for_and_since_when() {
    let sink = Collect::default().with_options(|o| o.with_max_rows(1).with_max_in_flight(1));
    sink.behave(Behaviour::Stall);
    let recovered_at = Instant::now() + 100 * SECOND;
    let strategy = Strategy::new()
        .map(move |record: OwnedRecord| async move {
            if record.offset() == 7 {
                sleep(60 * SECOND).await;
            }
            match record.offset() {
                8 if Instant::now() < recovered_at => Err(Retryable::new("status 503").into()),
                offset => Ok::<_, BoxError>(offset),
            }
        })
        .filter(|offset: &i64| *offset != 3)
        .reduce(sink.clone());
    let task = start(strategy).await.unwrap();
    assert_eq!(task.pulse_after(SECOND).await.to_string(), "waiting for records");

    task.fetch([3, 7, 8]);
    let started = Instant::now();
    let activity = task.pulse_after(30 * SECOND).await;
    assert_eq!(activity.to_string(), "waiting for the async map stage at offset 7");
    assert!(activity.since - started < SECOND, "since the task has the record");

    let activity = task.pulse_after(60 * SECOND).await.to_string();
    assert!(activity.starts_with("waiting to retry offset 8 after attempt "), "{activity}");
    assert!(activity.ends_with(": status 503"), "{activity}");

    // Rows that the stalled sink does not accept fill the channel to the reduce stage.
    (0..200).for_each(|batch| task.fetch(100 + 10 * batch..105 + 10 * batch));
    let activity = task.pulse_after(120 * SECOND).await;
    let text = activity.to_string();
    assert!(text.starts_with("waiting for reduce 1 to accept rows up to offset "), "{text}");
    assert_eq!(task.pulse_after(60 * SECOND).await.since, activity.since, "it has waited since then");

    sink.behave(Behaviour::Deliver);
    assert_eq!(task.pulse_after(SECOND).await.to_string(), "waiting for records");
    assert_eq!(task.budget.held(), 0);
}

#[tokio::test]
async fn the_activity_shows_a_synchronous_mapper_while_it_is_stuck() {
    let (entered, inside) = std::sync::mpsc::channel();
    let (leave, stuck) = std::sync::mpsc::channel::<()>();
    let (entered, stuck) = (std::sync::Mutex::new(entered), std::sync::Mutex::new(stuck));
    let strategy = Strategy::new()
        .map(move |record: &Record<'_>| {
            if record.offset() == 40 {
                entered.lock().unwrap().send(()).unwrap();
                let _ = stuck.lock().unwrap().recv();
            }
            Ok::<_, BoxError>(record.offset())
        })
        .reduce(Collect::default());
    let (sender, activity) = std::sync::mpsc::channel();
    let watcher = std::thread::spawn(move || {
        let activity: Arc<Activity> = activity.recv().unwrap();
        inside.recv().unwrap();
        let text = activity.read().to_string();
        drop(leave);
        text
    });
    let task = start(strategy).await.unwrap();
    sender.send(task.activity.clone()).unwrap();
    task.fetch(0..64);
    sleep(Duration::from_millis(1)).await;
    let text = watcher.join().unwrap();
    let offset: i64 =
        text.strip_prefix("mapping offset ").unwrap_or_else(|| panic!("{text}")).parse().unwrap();
    assert!((25..=40).contains(&offset), "at most a few records before it: {text}");
}

#[tokio::test(start_paused = true)]
async fn a_hand_off_ends_with_its_rows_or_when_the_task_waits() {
    let sink = Collect::default().with_options(|o| o.with_max_rows(2));
    let strategy = Strategy::new()
        .map(|record: OwnedRecord| async move {
            if record.offset() == 7 {
                sleep(60 * SECOND).await;
            }
            Ok::<_, BoxError>(record.offset())
        })
        .filter(|offset: &i64| *offset != 3)
        .reduce(sink.clone());
    let (task, mut timer, start) = (start(strategy).await.unwrap(), HandOffTimer::new(), Instant::now());
    // Rows that the reducer accepts, no row at all, and a record that waits.
    for offsets in [0..2, 3..4, 7..8] {
        assert!(timer.wait(task.fetch_with_hand_off(offsets)).await);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
    sleep(SECOND).await;
    assert_eq!(sink.rows(), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_of_0_is_an_error_before_any_stage_starts() {
    let strategy =
        Strategy::new().map(|record: &Record<'_>| Ok::<_, BoxError>(record.offset())).map_concurrency(0);
    let error = start(strategy.reduce(Collect::default())).await.err();
    assert!(matches!(&error, Some(Error::Config(why)) if why.contains("concurrency")), "{error:?}");
}
