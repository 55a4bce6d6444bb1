//! One run: performs the schedule, then ends all faults and waits until all work must be complete.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::Simulation;
use super::cluster::{Cluster, Counters};
use super::oracle::Violation;
use super::process::{Process, Shared, run_process};
use super::schedule::{PROCESSES, Schedule};
use crate::config::Until;
use crate::util::panic::panic_message;

/// Maximum virtual time until all work is complete after the last fault.
const COMPLETION_TIMEOUT: Duration = Duration::from_secs(3600);

/// Maximum virtual time until a bounded run ends then: a rebalance, and a while without partitions.
const BOUNDED_TIMEOUT: Duration = Duration::from_secs(300);

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) violation: Option<Violation>,
    pub(super) events: Vec<String>,
    pub(super) counters: Counters,
}

/// Runs a schedule on a runtime of its own, in virtual time.
pub(super) fn run(simulation: &Simulation, schedule: &Schedule) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let violation = Violation { rule: "the run starts", what: error.to_string() };
            return Outcome { violation: Some(violation), events: Vec::new(), counters: Counters::default() };
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
        let violation = Violation { rule: "the run starts", what: "no cluster".to_owned() };
        return Outcome { violation: Some(violation), events: Vec::new(), counters: Counters::default() };
    };
    if let Err(panic) = result {
        cluster.lock().violate("no panic", panic_message(&*panic));
    }
    let outcome = {
        let mut state = cluster.lock();
        Outcome {
            violation: state.oracle.violation().cloned(),
            events: state.take_events(),
            counters: state.counters,
        }
    };
    drop(runtime);
    outcome
}

/// A run of a schedule.
pub(super) struct Run<'s> {
    pub(super) cluster: Cluster,
    pub(super) schedule: &'s Schedule,
    pub(super) processes: Vec<Process>,
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

    pub(super) fn start(&mut self, number: usize, until: Option<Until>) {
        let process = &mut self.processes[number];
        if process.task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        process.shared = Arc::new(Shared::new(until));
        let (cluster, shared, schedule) =
            (self.cluster.clone(), process.shared.clone(), self.schedule.clone());
        process.task = Some(tokio::spawn(run_process(number, cluster, shared, schedule)));
    }

    /// Ends all faults. Then the processes must complete all work, and end when they are stopped.
    async fn finish(mut self) {
        self.end_faults();
        self.reveal_deafness().await;
        let deadline = Instant::now() + COMPLETION_TIMEOUT;
        loop {
            if self.cluster.lock().oracle.violation().is_some() {
                return;
            }
            self.keep_one_running();
            if self.is_finished(Instant::now() >= deadline) {
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
        self.await_bounded().await;
        self.stop_all().await;
        self.check_end();
    }

    fn end_faults(&self) {
        let (now, mut state) = (Instant::now(), self.cluster.lock());
        state.faults.commits = None;
        state.faults.sinks = None;
        state.faults.sink_broken = false;
        state.faults.no_fetch_until = now;
        state.faults.failing_calls_until = now;
        state.unreadable.clear();
        state.group.end_faults();
        state.note(format_args!("no more faults from here on"));
    }

    fn keep_one_running(&mut self) {
        if !self.processes.iter().any(Process::is_running) {
            let free = |process: &Process| process.task.as_ref().is_none_or(JoinHandle::is_finished);
            if let Some(number) = self.processes.iter().position(free) {
                self.start(number, None);
            }
        }
    }

    /// Bounded runs end by themselves once all records are finished.
    async fn await_bounded(&mut self) {
        let deadline = Instant::now() + BOUNDED_TIMEOUT;
        let running = |process: &Process| process.is_running() && process.shared.is_bounded();
        while let Some(number) = self.processes.iter().position(running) {
            if Instant::now() >= deadline {
                let what = format!("process {number} runs on after {BOUNDED_TIMEOUT:?}");
                self.cluster.lock().violate("a bounded run ends", what);
                return;
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn stop_all(&mut self) {
        for process in &self.processes {
            process.shared.stop();
        }
        let deadline = Instant::now() + Simulation::DRAIN_TIMEOUT + Duration::from_secs(60);
        for (number, process) in self.processes.iter_mut().enumerate() {
            let Some(task) = process.task.take() else { continue };
            match timeout_at(deadline, task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if error.is_cancelled() => {}
                Ok(Err(error)) => {
                    self.cluster.lock().violate("no panic", format!("process {number}: {error}"));
                }
                Err(_) => {
                    let what = format!("process {number} received a stop request and did not end");
                    self.cluster.lock().violate("L3 ordered shutdown", what);
                }
            }
        }
    }

    /// Whether all records are finished and committed. `late`: they must be.
    fn is_finished(&self, late: bool) -> bool {
        let mut state = self.cluster.lock();
        let unfinished = state.oracle.first_unfinished();
        let uncommitted = state.uncommitted();
        if late {
            if let Some((partition, offset)) = unfinished {
                state.violate("no lost record", format!("{partition} offset {offset} was never finished"));
            } else if let Some(partition) = uncommitted.first() {
                state.violate(
                    "finished records are committed",
                    format!("{partition} is not committed up to its last record"),
                );
            }
            return true;
        }
        unfinished.is_none() && uncommitted.is_empty()
    }

    /// What must hold at the end of a run.
    fn check_end(&self) {
        let mut state = self.cluster.lock();
        if let Some((partition, offset)) = state.oracle.first_unfinished() {
            state.violate("no lost record", format!("{partition} offset {offset} was never finished"));
        }
        if self.cluster.simulation.exactly_once
            && let Some((partition, offset, times)) = state.oracle.first_duplicate_row()
        {
            let what = format!("a sink has a row of {partition} offset {offset} {times} times");
            state.violate("each row once", what);
        }
        // In exactly-once mode a record that is read again may fail again, so dead letters may
        // repeat.
        if self.schedule.is_graceful()
            && !self.cluster.simulation.exactly_once
            && !state.group.has_rejoined_early()
            && let Some((partition, offset, times)) = state.oracle.first_duplicate()
        {
            let what = format!("{partition} offset {offset} was delivered {times} times without a fault");
            state.violate("no duplicates without a fault", what);
        }
        let records = state.oracle.record_count();
        state.note(format_args!("{records} records are finished and committed"));
    }
}
