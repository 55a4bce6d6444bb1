//! The schedule of a run: its actions, and their times. A seed decides it. When the run fails, the
//! schedule is shortened and printed.

use std::fmt;
use std::time::Duration;

use super::rng::Rng;
use crate::member::PartitionFailure;

/// Processes that may be members of the group.
pub(super) const PROCESSES: usize = 4;
/// Names of the topics. The second one may be deleted and created again.
pub(super) const TOPICS: [&str; 2] = ["orders", "visits"];

/// Whole milliseconds, as timestamps of records.
pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// How the group rebalances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Classic: each rebalance revokes all partitions.
    Eager,
    /// Classic: a rebalance revokes only partitions that move.
    Cooperative,
    /// KIP-848: each member receives its own revocations and assignments.
    NextGeneration,
}

/// A temporary fault of commits at the group coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitFault {
    /// Responses are slow.
    Slow,
    /// The coordinator is loading, so commits must be retried.
    Retryable,
    /// Some commits take effect, and the response is an error after which they are retried.
    Applied,
    /// The principal may not commit.
    Rejected,
    /// Exactly-once mode: some requests have no response and are sent again. The first copy reaches
    /// the coordinator later, while the member may have committed again.
    Lost,
}

/// A temporary fault of all sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SinkFault {
    /// Deliveries take seconds.
    Slow,
    /// Deliveries never end, so the attempts time out.
    Stall,
    /// The rows are not written, and the response is an error.
    Fail,
    /// The rows are written, and the response is an error or never arrives.
    Unknown,
}

/// Why a partition cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadFault {
    /// A batch is corrupt.
    Corrupt,
    /// The principal may no longer read the topic.
    Unauthorized,
}

impl ReadFault {
    pub(super) fn failure(self, offset: i64) -> PartitionFailure {
        match self {
            Self::Corrupt => PartitionFailure::Unreadable { offset, reason: "simulated: bad CRC".to_owned() },
            Self::Unauthorized => PartitionFailure::Unauthorized,
        }
    }
}

/// One action of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Records are produced, each after `gap` offsets without a record.
    Produce {
        topic: usize,
        partition: usize,
        records: usize,
        gap: i64,
    },
    /// Offsets without a record are appended to the log.
    Markers {
        topic: usize,
        partition: usize,
    },
    Start {
        process: usize,
    },
    /// A bounded run starts: up to the end of each log, or up to a time since the start.
    StartBounded {
        process: usize,
        until: Option<Duration>,
    },
    /// An ordered shutdown.
    Stop {
        process: usize,
    },
    /// A stop request, and a second one after some time.
    Force {
        process: usize,
        after: Duration,
    },
    Kill {
        process: usize,
    },
    /// The process loses its connection to the brokers.
    Isolate {
        process: usize,
        time: Duration,
    },
    /// The client receives no events of the group any more, and the group removes it. It fetches
    /// on, as librdkafka does after a rebalance that it has not completed.
    Deaf {
        process: usize,
    },
    /// The client fails permanently.
    Fatal {
        process: usize,
    },
    /// The credentials of the process have changed, so that its client is replaced in order.
    Renew {
        process: usize,
    },
    /// The assignor moves partitions.
    Reshuffle,
    AddPartition {
        topic: usize,
    },
    DeleteTopic,
    CreateTopic,
    Commits {
        fault: CommitFault,
        time: Duration,
    },
    Sinks {
        fault: SinkFault,
        time: Duration,
    },
    /// The next delivery fails permanently.
    SinkBroken,
    /// Fetches return nothing.
    NoFetch {
        time: Duration,
    },
    /// The operator pauses a partition for a while.
    Pause {
        process: usize,
        topic: usize,
        partition: usize,
        time: Duration,
    },
    /// The operator seeks back, to a percentage of the committed offset.
    Seek {
        process: usize,
        topic: usize,
        partition: usize,
        percent: i64,
    },
    /// Retention removes the oldest records of a partition, read or not.
    Truncate {
        topic: usize,
        partition: usize,
        percent: usize,
    },
    /// The next fetch of a partition fails.
    Unreadable {
        topic: usize,
        partition: usize,
        fault: ReadFault,
    },
    /// Some calls of clients fail: assign, seek, pause, reading offsets.
    FailingCalls {
        time: Duration,
    },
    /// A foreign tool moves the offset of a partition while the group is stopped. It keeps the
    /// metadata or drops it.
    ForeignCommit {
        topic: usize,
        partition: usize,
        keeps_metadata: bool,
    },
    /// Exactly-once mode: the sinks accept what they reject otherwise.
    Lenient {
        time: Duration,
    },
    /// The client that fetches a partition goes on without it, and reports no error.
    Silence {
        topic: usize,
        partition: usize,
    },
    /// Poll returns the latest records again.
    ReturnTwice {
        process: usize,
    },
}

/// The actions of a run. The same seed also decides its other random values, such as latencies and
/// sizes of fetches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) seed: u64,
    pub(super) protocol: Protocol,
    pub(super) partitions: usize,
    /// Whether the group has committed the partitions with metadata before.
    pub(super) metadata: bool,
    /// Where partitions without a committed offset start, as a time since the start. `None`: at the
    /// lowest offset.
    pub(super) start_at: Option<Duration>,
    pub(super) steps: Vec<(Duration, Action)>,
}

impl Schedule {
    pub(super) fn random(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let protocol = match rng.below(3) {
            0 => Protocol::Eager,
            1 => Protocol::Cooperative,
            _ => Protocol::NextGeneration,
        };
        let partitions = rng.between(1, 6);
        let metadata = rng.chance(40);
        let calm = rng.chance(25);
        let mut at = Duration::ZERO;
        let mut steps = vec![(at, Action::Start { process: 0 })];
        for _ in 0..rng.between(4, 40) {
            at += match rng.below(4) {
                0 => Duration::ZERO,
                1 => rng.time(Duration::from_millis(300)),
                2 => rng.time(Duration::from_secs(2)),
                _ => rng.time(Duration::from_secs(12)),
            };
            steps.push((at, Action::random(&mut rng, partitions, calm)));
        }
        let mut schedule = Self { seed, protocol, partitions, metadata, start_at: None, steps };
        schedule.add_truncation();
        schedule.add_client_faults();
        schedule.add_deafness();
        schedule.add_silence();
        schedule.add_commit_faults();
        schedule.add_bounded_runs();
        schedule.add_renewals();
        schedule.choose_start();
        schedule
    }

    /// Whether the members are static. In a cooperative group, such a member may be removed and
    /// join again without a notice.
    pub(super) fn is_static(&self) -> bool {
        Rng::new(self.seed ^ 0x1D).chance(30)
    }

    /// Whether a partition may be silent, so that only the watchdog gets it read again.
    pub(super) fn has_silence(&self) -> bool {
        self.steps.iter().any(|(_, action)| matches!(action, Action::Silence { .. }))
    }

    /// The schedule for exactly-once mode. It has no faults that only an operator can repair,
    /// except those that the simulated operator repairs.
    pub(super) fn for_exactly_once(mut self) -> Self {
        self.steps.retain(|(_, action)| !matches!(action, Action::Truncate { .. }));
        let mut rng = Rng::new(self.seed ^ 0xE4);
        if rng.chance(30) {
            let lenient = Action::Lenient { time: rng.time(Duration::from_secs(30)) };
            self.add([(rng.time(self.end().max(Duration::from_millis(1))), lenient)]);
        }
        self.add_late_commits();
        let mut rng = Rng::new(self.seed ^ 0xE0);
        if rng.chance(25) {
            let mut at = self.end();
            let mut step = |wait, action| {
                at += Duration::from_secs(wait);
                self.steps.push((at, action));
            };
            let partition = rng.below(self.partitions);
            (0..PROCESSES).for_each(|process| step(0, Action::Stop { process }));
            step(120, Action::ForeignCommit { topic: 0, partition, keeps_metadata: rng.chance(50) });
            step(1, Action::Produce { topic: 0, partition, records: 30, gap: 0 });
            step(1, Action::Start { process: 0 });
            step(30, Action::Kill { process: 0 });
        }
        self
    }

    /// Whether every row must be delivered exactly once, because no action leaves the outcome of a
    /// delivery or of a commit unknown.
    pub(super) fn is_graceful(&self) -> bool {
        self.steps.iter().all(|(_, action)| action.is_graceful())
    }

    /// Whether a shutdown may leave work that cannot be finished in time.
    pub(super) fn may_end_unfinished(&self) -> bool {
        let delays = |action: &Action| {
            matches!(
                action,
                Action::Commits { .. } | Action::Sinks { .. } | Action::Force { .. } | Action::Isolate { .. }
            ) || matches!(action, Action::Unreadable { .. } | Action::FailingCalls { .. })
                || matches!(action, Action::Fatal { .. } | Action::SinkBroken | Action::Deaf { .. })
        };
        self.steps.iter().any(|(_, action)| delays(action))
    }

    /// The schedule without some of its steps.
    pub(super) fn without(&self, range: std::ops::Range<usize>) -> Self {
        let keep =
            |(index, step): (usize, &(Duration, Action))| (!range.contains(&index)).then(|| step.clone());
        let steps = self.steps.iter().enumerate().filter_map(keep).collect();
        Self { steps, ..self.clone() }
    }
}

impl Action {
    fn random(rng: &mut Rng, partitions: usize, calm: bool) -> Self {
        let topic = usize::from(rng.chance(30));
        let partition = rng.below(partitions);
        let process = rng.below(PROCESSES);
        let time = rng.time(Duration::from_secs(45));
        match rng.below(if calm { 60 } else { 100 }) {
            0..35 => {
                let gap = if rng.chance(40) { rng.between(1, 9) } else { 0 };
                let gap = i64::try_from(gap).unwrap_or(0);
                Action::Produce { topic, partition, records: rng.between(1, 40), gap }
            }
            35..38 => Action::Markers { topic, partition },
            38..46 => Action::Start { process },
            46..50 => Action::Stop { process },
            50..51 => Action::Pause { process, topic, partition, time },
            51..57 => Action::Reshuffle,
            57..60 => Action::AddPartition { topic },
            60..66 => Action::Kill { process },
            66..71 => Action::Isolate { process, time },
            71..74 => Action::Fatal { process },
            74..76 => Action::Force { process, after: rng.time(Duration::from_secs(3)) },
            76..78 => Action::DeleteTopic,
            78..80 => Action::CreateTopic,
            80..84 => {
                let fault = if rng.chance(50) { CommitFault::Slow } else { CommitFault::Retryable };
                Action::Commits { fault, time }
            }
            84..93 => {
                let fault = match rng.below(4) {
                    0 => SinkFault::Slow,
                    1 => SinkFault::Stall,
                    2 => SinkFault::Fail,
                    _ => SinkFault::Unknown,
                };
                // Now and then, long enough for a drain to reach its deadline.
                let longer = Duration::from_secs(if fault == SinkFault::Stall { 20 } else { 0 });
                Action::Sinks { fault, time: time + longer }
            }
            93..94 => Action::SinkBroken,
            94..95 => Action::NoFetch { time },
            95..97 => Action::Seek {
                process,
                topic,
                partition,
                percent: i64::try_from(rng.below(101)).unwrap_or(0),
            },
            97..98 => Action::Truncate { topic, partition, percent: 50 },
            98..99 => Action::Pause { process, topic, partition, time },
            _ => Action::ReturnTwice { process },
        }
    }

    fn is_graceful(&self) -> bool {
        match self {
            Action::Produce { .. }
            | Action::Markers { .. }
            | Action::Start { .. }
            | Action::StartBounded { .. }
            | Action::Stop { .. }
            | Action::Renew { .. }
            | Action::Reshuffle
            | Action::AddPartition { .. }
            | Action::NoFetch { .. }
            | Action::Pause { .. }
            | Action::Lenient { .. }
            | Action::ReturnTwice { .. } => true,
            Action::Sinks { fault, .. } => *fault == SinkFault::Fail,
            _ => false,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, protocol, partitions, metadata, start_at, steps } = self;
        writeln!(f, "seed {seed}: {protocol:?}, {partitions} partitions, committed metadata: {metadata}")?;
        if let Some(time) = start_at {
            writeln!(f, "  partitions without a committed offset start at {:.3} s", time.as_secs_f64())?;
        }
        for (at, action) in steps {
            writeln!(f, "  at {:>8.3} s  {action:?}", at.as_secs_f64())?;
        }
        Ok(())
    }
}
