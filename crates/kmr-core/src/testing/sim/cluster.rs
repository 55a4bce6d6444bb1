//! The simulated cluster: logs, the group, committed offsets, connected clients and current faults.
//!
//! One lock protects all of it, and no task awaits while it holds the lock. Every event is logged,
//! in order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};

use super::Simulation;
use super::blocks::Blocks;
use super::fetching::Fetching;
use super::group::{Group, MemberId};
use super::log::Log;
use super::oracle::Oracle;
use super::rng::Rng;
use super::schedule::{CommitFault, ReadFault, Schedule, SinkFault, TOPICS};
use crate::error::Error;
use crate::member::{Change, MemberEvent};
use crate::record::TopicPartition;

/// Interval at which the group coordinator checks its members.
const TICK: Duration = Duration::from_millis(100);
/// Maximum time for the answer to a revoke: the drain, and a commit with a slow response.
const ANSWER_TIMEOUT: Duration = Simulation::DRAIN_TIMEOUT.saturating_add(Duration::from_secs(20));
/// Maximum number of calls of a client at one moment. More of them are a busy loop.
const MAX_CALLS: u32 = 200_000;

/// One connected client.
pub(super) struct Client {
    pub(super) events: mpsc::UnboundedSender<MemberEvent>,
    pub(super) data: Arc<Notify>,
    pub(super) fetching: BTreeMap<TopicPartition, Fetching>,
    /// Whether it receives the ends of logs.
    pub(super) reports_ends: bool,
    /// Partitions that it has released, or that it was notified to have lost. It must not commit
    /// them.
    pub(super) released: BTreeMap<TopicPartition, Change>,
    /// Partitions whose commits the group has rejected, and since when without exception.
    pub(super) rejected: BTreeMap<TopicPartition, Instant>,
    /// The partitions of the outstanding commit.
    pub(super) committing: BTreeSet<TopicPartition>,
    /// The incarnation of the member when partitions were assigned to it.
    pub(super) incarnations: BTreeMap<TopicPartition, u32>,
    /// Partitions whose commits have failed permanently.
    pub(super) failed_commits: BTreeSet<TopicPartition>,
    /// A request of its commits had no response.
    pub(super) lost_commit: bool,
    /// Whether its fetch queue has held items since a poll last found it empty. The client wakes
    /// the reader only when an empty queue receives an item.
    pub(super) woken: bool,
    /// Items in its fetch queue of assignments that have ended. A poll takes them and returns none.
    pub(super) strays: usize,
    /// When it received its last event. `None`: it has called again since then.
    pub(super) callback_at: Option<Instant>,
    /// The current moment, and the number of calls in it.
    calls: (Instant, u32),
}

/// The current faults, and when they end.
#[derive(Debug)]
pub(super) struct Faults {
    pub(super) commits: Option<(CommitFault, Instant)>,
    pub(super) sinks: Option<(SinkFault, Instant)>,
    pub(super) sink_broken: bool,
    pub(super) no_fetch_until: Instant,
    /// Until then, some calls of clients fail.
    pub(super) failing_calls_until: Instant,
    /// The end of the last fault of any kind.
    pub(super) any_until: Instant,
}

/// The counters of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) records: u64,
    pub(super) rebalances: u64,
    pub(super) commits: u64,
    pub(super) members: u64,
}

/// The state that the lock protects.
pub(super) struct ClusterState {
    started: Instant,
    pub(super) rng: Rng,
    pub(super) log: Log,
    pub(super) group: Group,
    pub(super) committed: BTreeMap<TopicPartition, (i64, Option<Arc<str>>)>,
    /// The metadata in force. Every commit must carry it (C7).
    pub(super) metadata: BTreeMap<TopicPartition, Arc<str>>,
    pub(super) clients: BTreeMap<MemberId, Client>,
    pub(super) faults: Faults,
    /// Partitions of which the next fetch fails, and how.
    pub(super) unreadable: BTreeMap<TopicPartition, ReadFault>,
    pub(super) oracle: Oracle,
    pub(super) counters: Counters,
    /// The operator has moved a position back, and so a committed offset.
    pub(super) was_sought: bool,
    /// Partitions whose starting position was chosen. It must be committed.
    pub(super) chosen: BTreeMap<TopicPartition, i64>,
    /// Exactly-once mode.
    pub(super) blocks: Blocks,
    last_member: MemberId,
    events: Vec<String>,
}

/// A simulated cluster. Clones are the same cluster.
#[derive(Clone)]
pub(super) struct Cluster {
    state: Arc<Mutex<ClusterState>>,
    pub(super) simulation: Simulation,
}

impl Cluster {
    pub(super) fn new(simulation: &Simulation, schedule: &Schedule) -> Self {
        let now = Instant::now();
        let mut state = ClusterState {
            started: now,
            rng: Rng::new(schedule.seed.rotate_left(32)),
            log: Log::default(),
            group: Group::new(schedule.protocol, schedule.is_static()),
            committed: BTreeMap::new(),
            metadata: BTreeMap::new(),
            clients: BTreeMap::new(),
            faults: Faults {
                commits: None,
                sinks: None,
                sink_broken: false,
                no_fetch_until: now,
                failing_calls_until: now,
                any_until: now,
            },
            unreadable: BTreeMap::new(),
            oracle: Oracle::default(),
            counters: Counters::default(),
            was_sought: false,
            chosen: BTreeMap::new(),
            blocks: Blocks::new(simulation.exactly_once),
            last_member: 0,
            events: Vec::new(),
        };
        for topic in TOPICS {
            state.log.create(&topic.into(), schedule.partitions);
        }
        if schedule.metadata && !simulation.exactly_once {
            for partition in state.log.partitions() {
                let text: Arc<str> = format!("plan of {partition}").into();
                state.committed.insert(partition.clone(), (0, Some(text.clone())));
                state.metadata.insert(partition, text);
            }
        }
        Self { state: Arc::new(Mutex::new(state)), simulation: simulation.clone() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ClusterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the group until the future is dropped.
    pub(super) async fn run_group(self) {
        loop {
            sleep(TICK).await;
            self.lock().tick();
        }
    }

    /// Connects a client, which joins the group. A bounded run needs the ends of logs.
    pub(super) fn join(
        &self,
        is_bounded: bool,
    ) -> (MemberId, mpsc::UnboundedReceiver<MemberEvent>, Arc<Notify>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let (data, now) = (Arc::new(Notify::new()), Instant::now());
        let mut state = self.lock();
        state.last_member += 1;
        state.counters.members += 1;
        let id = state.last_member;
        let client = Client {
            events,
            data: data.clone(),
            fetching: BTreeMap::new(),
            reports_ends: is_bounded || self.simulation.exactly_once,
            released: BTreeMap::new(),
            rejected: BTreeMap::new(),
            committing: BTreeSet::new(),
            failed_commits: BTreeSet::new(),
            incarnations: BTreeMap::new(),
            lost_commit: false,
            woken: false,
            strays: 0,
            callback_at: None,
            calls: (now, 0),
        };
        state.clients.insert(id, client);
        state.group.join(id, now);
        state.note(format_args!("member {id} joins"));
        (id, receiver, data)
    }
}

impl ClusterState {
    /// Logs an event.
    pub(super) fn note(&mut self, what: fmt::Arguments<'_>) {
        let at = self.started.elapsed().as_secs_f64();
        self.events.push(format!("{at:>9.3} s  {what}"));
    }

    pub(super) fn take_events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }

    /// Reports a broken rule, and logs it.
    pub(super) fn violate(&mut self, rule: &'static str, what: String) {
        self.note(format_args!("BROKEN {rule}: {what}"));
        self.oracle.violate(rule, what);
    }

    /// Virtual milliseconds since the run began.
    pub(super) fn millis(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// The virtual time that many milliseconds after the start of the run.
    pub(super) fn at(&self, millis: i64) -> Instant {
        self.started + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    fn tick(&mut self) {
        let partitions = self.log.partitions();
        let notified = self.group.step(Instant::now(), &partitions, &mut self.rng);
        for (id, rebalance) in notified {
            let names: Vec<String> = rebalance.partitions.iter().map(ToString::to_string).collect();
            self.counters.rebalances += 1;
            self.note(format_args!(
                "member {id} is notified: #{} {:?} {}",
                rebalance.id,
                rebalance.change,
                names.join(" ")
            ));
            if let Some(client) = self.clients.get(&id) {
                let _ = client.events.send(MemberEvent::Rebalance(rebalance));
            }
        }
        let overdue =
            self.group.overdue(Instant::now(), ANSWER_TIMEOUT).map(|(id, rebalance)| (id, rebalance.id));
        if let Some((id, rebalance)) = overdue {
            let what = format!("member {id} has not answered #{rebalance} within {ANSWER_TIMEOUT:?}");
            self.violate("R3 answered in time", what);
        }
        self.wake_readers();
    }

    /// Counts a call of a client. Too many calls at one moment are a busy loop.
    pub(super) fn count_call(&mut self, id: MemberId) {
        let now = Instant::now();
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.calls = if client.calls.0 == now { (now, client.calls.1 + 1) } else { (now, 1) };
        if client.calls.1 > MAX_CALLS {
            let what = format!("member {id} called {MAX_CALLS} times at one moment");
            self.violate("no busy loop", what.clone());
            // Virtual time makes no progress, so nothing else can end this run.
            std::panic::resume_unwind(Box::new(what));
        }
    }

    /// A client disappears without leaving the group. The group notices when the session times out.
    pub(super) fn vanish(&mut self, id: MemberId) {
        if self.clients.remove(&id).is_some() {
            let now = Instant::now();
            self.note(format_args!("member {id} disappears"));
            self.group.isolate(id, now, now + Duration::from_secs(1_000_000));
        }
    }

    /// A client leaves the group.
    pub(super) fn leave(&mut self, id: MemberId) {
        if self.clients.remove(&id).is_some() {
            self.note(format_args!("member {id} leaves"));
            self.group.remove(id);
        }
    }

    /// A client fails permanently.
    pub(super) fn fail_client(&mut self, id: MemberId) {
        self.note(format_args!("member {id}: its client fails permanently"));
        self.group.fence(id);
        let error = Error::Client {
            operation: "simulated client".to_owned(),
            source: "fenced by the group".into(),
            retryable: true,
        };
        if let Some(client) = self.clients.get(&id) {
            let _ = client.events.send(MemberEvent::Fatal(error));
        }
    }

    /// Produces records, one after another.
    pub(super) fn produce(
        &mut self,
        simulation: &Simulation,
        partition: &TopicPartition,
        count: usize,
        gap: i64,
    ) {
        let millis = self.millis();
        for _ in 0..count {
            let record = simulation.make_record(self.rng.next());
            let Some(record) = self.log.append(partition, gap, record, millis) else { return };
            let fate = simulation.fate_of(&record.as_record());
            self.oracle.produced(partition, record.offset(), fate);
            self.counters.records += 1;
        }
        self.wake_readers();
    }

    pub(super) fn delete_topic(&mut self, topic: &str) {
        for partition in self.log.delete(topic) {
            self.oracle.deleted(&partition);
            self.committed.remove(&partition);
            self.metadata.remove(&partition);
            self.chosen.remove(&partition);
            self.unreadable.remove(&partition);
        }
        self.group.rebalance();
    }

    /// Whether a member holds a partition of the topic, according to the group or to itself.
    pub(super) fn is_held(&self, topic: &str) -> bool {
        let fetches = |(id, client): (&MemberId, &Client)| {
            self.group.is_deaf(*id) && client.fetching.keys().any(|partition| partition.topic() == topic)
        };
        self.group.holds_topic(topic) || self.clients.iter().any(fetches)
    }

    /// Partitions whose records are not all committed yet.
    pub(super) fn uncommitted(&self) -> BTreeSet<TopicPartition> {
        let lags = |partition: &TopicPartition| {
            let end = self.log.get(partition)?.end_of_records();
            let required = end.max(self.chosen.get(partition).copied())?;
            let committed = self.committed.get(partition).map_or(0, |(offset, _)| *offset);
            (committed < required).then(|| partition.clone())
        };
        self.log.partitions().iter().filter_map(lags).collect()
    }
}
