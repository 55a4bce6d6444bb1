//! One run: starts and ends processes, lets the schedule happen, then waits, without faults, until everything has to be done.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::Simulation;
use super::cluster::{Cluster, Figures};
use super::group::MemberId;
use super::member::SimConnector;
use super::oracle::Violation;
use super::rng::Rng;
use super::schedule::{Action, PROCESSES, Schedule, TOPICS};
use super::sinks::Sinks;
use crate::config::{ClientConfig, ResetPolicy};
use crate::consumer::{Consumer, ConsumerHandle, RunReport};
use crate::error::{Error, error_chain};
use crate::record::TopicPartition;
use crate::util::panic::panic_message;
use crate::watchdog::Watchdog;

/// Virtual time in which everything has to be done once nothing is wrong any more.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) violation: Option<Violation>,
    pub(super) events: Vec<String>,
    pub(super) figures: Figures,
}

/// Runs a schedule, on a runtime of its own whose clock only moves when nothing else does.
pub(super) fn run(simulation: &Simulation, schedule: &Schedule) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let violation = Violation { rule: "the run can start", what: error.to_string() };
            return Outcome { violation: Some(violation), events: Vec::new(), figures: Figures::default() };
        }
    };
    let seen: Arc<Mutex<Option<Cluster>>> = Arc::default();
    let result = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let cluster = Cluster::new(simulation, schedule);
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(cluster.clone());
            Run::new(cluster, schedule).drive().await;
        });
    }));
    let Some(cluster) = seen.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        let violation = Violation { rule: "the run can start", what: "no cluster".to_owned() };
        return Outcome { violation: Some(violation), events: Vec::new(), figures: Figures::default() };
    };
    if let Err(panic) = result {
        cluster.lock().violate("nothing panics", panic_message(&*panic));
    }
    let outcome = {
        let mut state = cluster.lock();
        Outcome {
            violation: state.oracle.violation().cloned(),
            events: state.take_events(),
            figures: state.figures,
        }
    };
    drop(runtime);
    outcome
}

/// A process that may be running a consumer.
#[derive(Default)]
struct Process {
    task: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// What a process shares with its driver.
#[derive(Default)]
struct Shared {
    handle: Mutex<Option<ConsumerHandle>>,
    stopping: AtomicBool,
    member: Arc<Mutex<Option<MemberId>>>,
}

impl Shared {
    fn handle(&self) -> Option<ConsumerHandle> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn member(&self) -> Option<MemberId> {
        *self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks it to end, once.
    fn stop(&self) {
        if !self.stopping.swap(true, Ordering::Relaxed)
            && let Some(handle) = self.handle()
        {
            handle.stop();
        }
    }

    fn force_stop(&self) {
        if let Some(handle) = self.handle() {
            handle.stop_now();
        }
    }
}

struct Run<'s> {
    cluster: Cluster,
    schedule: &'s Schedule,
    processes: Vec<Process>,
}

impl<'s> Run<'s> {
    fn new(cluster: Cluster, schedule: &'s Schedule) -> Self {
        Self { cluster, schedule, processes: (0..PROCESSES).map(|_| Process::default()).collect() }
    }

    async fn drive(mut self) {
        let started = Instant::now();
        let group = tokio::spawn(self.cluster.clone().run_group());
        for (at, action) in &self.schedule.steps {
            sleep_until(started + *at).await;
            self.cluster.lock().note(format_args!("{action:?}"));
            self.act(action);
            if self.cluster.lock().oracle.violation().is_some() {
                break;
            }
        }
        self.finish().await;
        group.abort();
    }

    fn act(&mut self, action: &Action) {
        let now = Instant::now();
        let fault = |cluster: &Cluster, until: Instant| {
            let mut state = cluster.lock();
            state.faults.any_until = state.faults.any_until.max(until);
        };
        match action {
            Action::Produce { topic, partition, records, gap } => {
                let mut state = self.cluster.lock();
                if let Some(partition) = place(&state.log, *topic, *partition) {
                    state.produce(&self.cluster.simulation, &partition, *records, *gap);
                }
            }
            Action::Markers { topic, partition } => {
                let mut state = self.cluster.lock();
                if let Some(partition) = place(&state.log, *topic, *partition) {
                    state.log.append_markers(&partition, 3);
                }
            }
            Action::Start { process } => self.start(*process),
            Action::Stop { process } => self.processes[*process].shared.stop(),
            Action::Force { process, after } => {
                let shared = self.processes[*process].shared.clone();
                shared.stop();
                let after = *after;
                tokio::spawn(async move {
                    sleep(after).await;
                    shared.force_stop();
                });
            }
            Action::Kill { process } => {
                if let Some(task) = self.processes[*process].task.take() {
                    task.abort();
                }
                // The group needs its time to notice.
                fault(&self.cluster, now + Duration::from_secs(12));
            }
            Action::Isolate { process, time } => {
                if let Some(member) = self.processes[*process].shared.member() {
                    let mut state = self.cluster.lock();
                    state.group.isolate(member, now, now + *time);
                }
                fault(&self.cluster, now + *time + Duration::from_secs(12));
            }
            Action::Fatal { process } => {
                if let Some(member) = self.processes[*process].shared.member() {
                    self.cluster.lock().fail_client(member);
                }
                fault(&self.cluster, now + Duration::from_secs(12));
            }
            Action::Reshuffle => self.cluster.lock().group.reshuffle(),
            Action::AddPartition { topic } => {
                let mut state = self.cluster.lock();
                let partitions = state.log.partition_count(TOPICS[*topic]);
                if partitions > 0 {
                    state.log.create(&TOPICS[*topic].into(), partitions + 1);
                    state.group.rebalance();
                }
            }
            Action::DeleteTopic => self.cluster.lock().delete_topic(TOPICS[1]),
            Action::CreateTopic => self.create_topic(),
            Action::Commits { fault: kind, time } => {
                self.cluster.lock().faults.commits = Some((*kind, now + *time));
                fault(&self.cluster, now + *time + Duration::from_secs(20));
            }
            Action::Sinks { fault: kind, time } => {
                self.cluster.lock().faults.sinks = Some((*kind, now + *time));
                fault(&self.cluster, now + *time + Duration::from_secs(20));
            }
            Action::SinkBroken => {
                self.cluster.lock().faults.sink_broken = true;
                fault(&self.cluster, now + Duration::from_secs(20));
            }
            Action::NoFetch { time } => {
                self.cluster.lock().faults.no_fetch_until = now + *time;
                fault(&self.cluster, now + *time);
            }
            Action::Pause { process, topic, partition, time } => {
                self.pause(*process, (*topic, *partition), *time);
                fault(&self.cluster, now + *time);
            }
            Action::Seek { process, topic, partition, percent } => {
                self.seek(*process, (*topic, *partition), *percent);
            }
            Action::Truncate { topic, partition } => {
                let mut state = self.cluster.lock();
                if let Some(partition) = place(&state.log, *topic, *partition)
                    && let Some(low) = state.log.truncate(&partition)
                {
                    state.oracle.truncated(&partition, low);
                }
            }
            Action::Foreign { topic, partition, keeps } => {
                let mut state = self.cluster.lock();
                if let Some(partition) = place(&state.log, *topic, *partition) {
                    state.commit_foreign(&partition, *keeps);
                }
            }
            Action::Lenient { time } => self.cluster.lock().blocks.lenient_until = Some(now + *time),
            Action::HandOutTwice { process } => self.hand_out_twice(*process),
        }
    }

    /// Not before every member has handed the deleted topic back: commits name topics, not their ids, so Kafka would take the
    /// last commit of the old topic for one of the new. No client can help that.
    fn create_topic(&self) {
        let partitions = self.schedule.partitions;
        let mut state = self.cluster.lock();
        if state.log.partition_count(TOPICS[1]) > 0 || state.group.holds_topic(TOPICS[1]) {
            return;
        }
        state.log.create(&TOPICS[1].into(), partitions);
        state.created_again(TOPICS[1]);
        state.group.rebalance();
    }

    fn pause(&self, process: usize, (topic, partition): (usize, usize), time: Duration) {
        let (Some(partition), Some(handle)) =
            (self.place(topic, partition), self.processes[process].shared.handle())
        else {
            return;
        };
        handle.pause([partition.clone()]);
        tokio::spawn(async move {
            sleep(time).await;
            handle.resume([partition]);
        });
    }

    fn seek(&self, process: usize, (topic, partition): (usize, usize), percent: i64) {
        let (Some(partition), Some(handle)) =
            (self.place(topic, partition), self.processes[process].shared.handle())
        else {
            return;
        };
        let cluster = self.cluster.clone();
        let committed = cluster.lock().committed.get(&partition).map_or(0, |(offset, _)| *offset);
        tokio::spawn(async move {
            let offset = committed * percent / 100;
            let result = handle.seek(partition.clone(), offset).await.map_err(|error| error_chain(&error));
            cluster
                .lock()
                .note(format_args!("process {process}: seek of {partition} to {offset}: {result:?}"));
        });
    }

    fn place(&self, topic: usize, partition: usize) -> Option<TopicPartition> {
        place(&self.cluster.lock().log, topic, partition)
    }

    fn hand_out_twice(&self, process: usize) {
        let Some(member) = self.processes[process].shared.member() else { return };
        let mut state = self.cluster.lock();
        let back = i64::try_from(state.rng.between(1, 6)).unwrap_or(1);
        if let Some(client) = state.clients.get_mut(&member) {
            for fetching in client.fetching.values_mut() {
                fetching.position = (fetching.position - back).max(fetching.start);
            }
        }
        state.wake_readers();
    }

    fn start(&mut self, number: usize) {
        let process = &mut self.processes[number];
        if process.task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        process.shared = Arc::default();
        let (cluster, shared, schedule) =
            (self.cluster.clone(), process.shared.clone(), self.schedule.clone());
        process.task = Some(tokio::spawn(run_process(number, cluster, shared, schedule)));
    }

    /// Nothing is wrong any more: whoever is alive has to finish, and then to end when told to.
    async fn finish(mut self) {
        {
            let (now, mut state) = (Instant::now(), self.cluster.lock());
            state.faults.commits = None;
            state.faults.sinks = None;
            state.faults.sink_broken = false;
            state.faults.no_fetch_until = now;
            state.note(format_args!("from here on nothing is wrong"));
        }
        let alive = |process: &Process| {
            process.task.as_ref().is_some_and(|task| !task.is_finished())
                && !process.shared.stopping.load(Ordering::Relaxed)
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.cluster.lock().oracle.violation().is_some() {
                return;
            }
            if !self.processes.iter().any(alive) {
                let free = |process: &Process| process.task.as_ref().is_none_or(JoinHandle::is_finished);
                if let Some(number) = self.processes.iter().position(free) {
                    self.start(number);
                }
            }
            if self.is_finished(Instant::now() >= deadline) {
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
        for process in &self.processes {
            process.shared.stop();
        }
        let deadline = Instant::now() + Simulation::DRAIN_DEADLINE + Duration::from_secs(60);
        for (number, process) in self.processes.iter_mut().enumerate() {
            let Some(task) = process.task.take() else { continue };
            match tokio::time::timeout_at(deadline, task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if error.is_cancelled() => {}
                Ok(Err(error)) => {
                    self.cluster.lock().violate("nothing panics", format!("process {number}: {error}"));
                }
                Err(_) => {
                    let what = format!("process {number} was told to stop and did not");
                    self.cluster.lock().violate("L3, every run ends", what);
                }
            }
        }
        self.judge();
    }

    /// Whether everything is delivered and committed; `late`: it has to be.
    fn is_finished(&self, late: bool) -> bool {
        let mut state = self.cluster.lock();
        let unfinished = state.oracle.first_unfinished();
        let uncommitted = state.uncommitted();
        if late {
            if let Some((partition, offset)) = unfinished {
                state.violate("nothing is lost", format!("{partition} offset {offset} never came"));
            } else if let Some(partition) = uncommitted.first() {
                state.violate("what is finished is committed", format!("{partition} never was, to its end"));
            }
            return true;
        }
        unfinished.is_none() && uncommitted.is_empty()
    }

    fn judge(&self) {
        let mut state = self.cluster.lock();
        if let Some((partition, offset)) = state.oracle.first_unfinished() {
            state.violate("nothing is lost", format!("{partition} offset {offset} never came"));
        }
        if self.cluster.simulation.exactly_once
            && let Some((partition, offset, times)) = state.oracle.first_double_row()
        {
            let what = format!("{partition} offset {offset} is in a sink {times} times");
            state.violate("each row once", what);
        }
        // In exactly-once mode what is read again fails again: dead letters come twice.
        if self.schedule.is_graceful()
            && !self.cluster.simulation.exactly_once
            && !state.group.has_hurried()
            && let Some((partition, offset, times)) = state.oracle.first_double()
        {
            let what = format!("{partition} offset {offset} came {times} times, and nothing was wrong");
            state.violate("nothing comes twice without a fault", what);
        }
        let records = state.oracle.record_count();
        state.note(format_args!("{records} records are finished and committed"));
    }
}

fn place(log: &super::log::Log, topic: usize, partition: usize) -> Option<TopicPartition> {
    let partitions = log.partition_count(TOPICS[topic]);
    let number = i32::try_from(partition.checked_rem(partitions)?).ok()?;
    Some(TopicPartition::new(TOPICS[topic], number))
}

/// A process: a consumer that is started again, as a supervisor would, when it has failed.
async fn run_process(number: usize, cluster: Cluster, shared: Arc<Shared>, schedule: Schedule) {
    let mut rng = Rng::new(schedule.seed ^ (number as u64 + 1).wrapping_mul(0x1234_5678_9ABC));
    while !shared.stopping.load(Ordering::Relaxed) {
        let result = run_consumer(&cluster, &shared, schedule.seed).await;
        match result {
            Ok(report) => {
                let mut state = cluster.lock();
                let held = shared.handle().map_or(0, |handle| handle.stats().bytes_held);
                if held != 0 {
                    state
                        .violate("M1, nothing is held at the end", format!("process {number}: {held} bytes"));
                }
                if report.stats.rebuilds > 0 && !may_rebuild(&schedule) {
                    state.violate("no failure without a reason", format!("process {number}: a new client"));
                }
                drop(state);
                cluster.lock().note(format_args!("process {number} has ended in order"));
                return;
            }
            Err(error) => {
                let text = error_chain(&error);
                let mut state = cluster.lock();
                state.note(format_args!("process {number} has failed: {text}"));
                let excused = match &error {
                    Error::ForeignOffset { partition, .. } => {
                        let foreign = state.is_foreign(partition);
                        state.start_epoch(partition);
                        foreign || may_fail(&error, &schedule)
                    }
                    error => may_fail(error, &schedule),
                };
                if !excused {
                    state.violate("no failure without a reason", format!("process {number}: {text}"));
                }
            }
        }
        sleep(Duration::from_secs(1) + rng.time(Duration::from_secs(8))).await;
    }
}

async fn run_consumer(cluster: &Cluster, shared: &Shared, seed: u64) -> Result<RunReport, Error> {
    let mut rng = Rng::new(seed ^ 0xB0D6E7);
    let memory_budget = rng.between(4, 200) << 10;
    let commit_interval = Duration::from_millis(rng.between(50, 3000) as u64);
    let strategy = cluster.simulation.strategy(&Sinks { cluster: cluster.clone(), seed });
    let config = ClientConfig::new().set("bootstrap.servers", "simulated").set("group.id", "simulated");
    let builder = Consumer::builder();
    let builder = if cluster.simulation.exactly_once {
        builder.exactly_once()
    } else {
        builder.out_of_range_policy(ResetPolicy::Earliest)
    };
    let consumer = builder
        .topics(TOPICS)
        .config(config)
        .strategy(strategy)
        .drain_timeout(Simulation::DRAIN_DEADLINE)
        .commit_interval(commit_interval)
        // A judge that comes after a healer sees nothing.
        .watchdog(Watchdog::default().with_restart_after(None))
        .shutdown_signal(std::future::pending())
        .build()?
        .with_memory_budget(memory_budget);
    let consumer = if rng.chance(50) { consumer } else { consumer.without_turns() };
    let handle = consumer.handle();
    *shared.handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle.clone());
    if shared.stopping.load(Ordering::Relaxed) {
        handle.stop();
    }
    let connector =
        SimConnector { cluster: cluster.clone(), handle, member: shared.member.clone(), memory_budget };
    consumer.run_on(Arc::new(connector), seed).await
}

/// Whether something in the schedule explains a new client.
fn may_rebuild(schedule: &Schedule) -> bool {
    let reason = |action: &Action| {
        matches!(action, Action::Fatal { .. } | Action::Isolate { .. } | Action::Commits { .. })
    };
    schedule.steps.iter().any(|(_, action)| reason(action))
}

/// Whether something in the schedule explains the failure.
fn may_fail(error: &Error, schedule: &Schedule) -> bool {
    let has = |wanted: fn(&Action) -> bool| schedule.steps.iter().any(|(_, action)| wanted(action));
    match error {
        Error::Client { .. } => {
            has(|action| matches!(action, Action::Fatal { .. })) || schedule.may_end_unfinished()
        }
        // Another process has met it first, and its operator was quick.
        Error::ForeignOffset { .. } => has(|action| matches!(action, Action::Foreign { .. })),
        Error::Stage { .. } => has(|action| matches!(action, Action::SinkBroken)),
        Error::Unfinished { .. } => schedule.may_end_unfinished(),
        _ => false,
    }
}
