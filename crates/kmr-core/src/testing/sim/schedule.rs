//! What happens in a run, and when: drawn from a seed, printed when the run fails, and made shorter
//! while it still fails.

use std::fmt;
use std::time::Duration;

use super::rng::Rng;

/// Processes that may be members of the group.
pub(super) const PROCESSES: usize = 4;
/// Names of the topics; the second one may be deleted and created again.
pub(super) const TOPICS: [&str; 2] = ["orders", "visits"];

/// How the group rebalances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Classic, everything is given back at each rebalance.
    Eager,
    /// Classic, only what moves is given back.
    Cooperative,
    /// KIP-848: each member is told on its own what to give back and what to take.
    NextGeneration,
}

/// What the group's coordinator does to commits for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitFault {
    /// Answers come late.
    Slow,
    /// It is loading: try again.
    Retryable,
}

/// What all sinks do for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SinkFault {
    /// Deliveries take seconds.
    Slow,
    /// Deliveries never end: the attempt's timeout does it.
    Stall,
    /// Nothing is written, and they say so.
    Fail,
    /// The rows are written, and the answer is an error, or none at all.
    Unknown,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Records are produced, each behind `gap` offsets without a record.
    Produce {
        topic: usize,
        partition: usize,
        records: usize,
        gap: i64,
    },
    /// The log ends with offsets that hold no record.
    Markers {
        topic: usize,
        partition: usize,
    },
    Start {
        process: usize,
    },
    /// In order.
    Stop {
        process: usize,
    },
    /// A second wish to stop follows the first.
    Force {
        process: usize,
        after: Duration,
    },
    Kill {
        process: usize,
    },
    /// The process is cut off from the brokers.
    Isolate {
        process: usize,
        time: Duration,
    },
    /// The client fails for good.
    Fatal {
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
    /// The next delivery fails for good.
    SinkBroken,
    /// Fetches return nothing.
    NoFetch {
        time: Duration,
    },
    /// The operator stops the reading of a partition for a while.
    Pause {
        process: usize,
        topic: usize,
        partition: usize,
        time: Duration,
    },
    /// The operator goes back, to some share of what is committed.
    Seek {
        process: usize,
        topic: usize,
        partition: usize,
        percent: i64,
    },
    /// Retention removes the older half of a partition's records, read or not.
    Truncate {
        topic: usize,
        partition: usize,
    },
    /// A tool that is not kmr's moves a partition's offset, of a group that is stopped, and keeps
    /// its metadata or drops it.
    ForeignCommit {
        topic: usize,
        partition: usize,
        keeps: bool,
    },
    /// Exactly-once mode: the sinks take what they refuse otherwise.
    Lenient {
        time: Duration,
    },
    /// Records that were just handed out are handed out again.
    ReturnTwice {
        process: usize,
    },
}

/// A run's script. Besides it, a run's chances (latencies, sizes of fetches) are drawn from the
/// same seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) seed: u64,
    pub(super) protocol: Protocol,
    pub(super) partitions: usize,
    /// The group has committed these with metadata before.
    pub(super) metadata: bool,
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
        Self { seed, protocol, partitions, metadata, steps }
    }

    /// The same for exactly-once mode: without what only an operator could mend, but for what one
    /// does mend in the simulation.
    pub(super) fn for_exactly_once(mut self) -> Self {
        self.steps.retain(|(_, action)| !matches!(action, Action::Truncate { .. }));
        let mut rng = Rng::new(self.seed ^ 0xE4);
        if rng.chance(30) {
            let end = self.steps.last().map_or(Duration::ZERO, |(at, _)| *at);
            let lenient = Action::Lenient { time: rng.time(Duration::from_secs(30)) };
            self.steps.push((rng.time(end.max(Duration::from_millis(1))), lenient));
            self.steps.sort_by_key(|(at, _)| *at);
        }
        let mut rng = Rng::new(self.seed ^ 0xE0);
        if rng.chance(25) {
            let mut at = self.steps.last().map_or(Duration::ZERO, |(at, _)| *at);
            let mut step = |wait, action| {
                at += Duration::from_secs(wait);
                self.steps.push((at, action));
            };
            let partition = rng.below(self.partitions);
            (0..PROCESSES).for_each(|process| step(0, Action::Stop { process }));
            step(120, Action::ForeignCommit { topic: 0, partition, keeps: rng.chance(50) });
            step(1, Action::Produce { topic: 0, partition, records: 30, gap: 0 });
            step(1, Action::Start { process: 0 });
            step(30, Action::Kill { process: 0 });
        }
        self
    }

    /// Whether every row has to be delivered exactly once: nothing in it leaves the outcome of a
    /// delivery or of a commit open.
    pub(super) fn is_graceful(&self) -> bool {
        self.steps.iter().all(|(_, action)| action.is_graceful())
    }

    /// Whether a wish to stop may find work that cannot be finished in time.
    pub(super) fn may_end_unfinished(&self) -> bool {
        let holds_up = |action: &Action| {
            matches!(
                action,
                Action::Commits { .. } | Action::Sinks { .. } | Action::Force { .. } | Action::Isolate { .. }
            ) || matches!(action, Action::Fatal { .. } | Action::SinkBroken)
        };
        self.steps.iter().any(|(_, action)| holds_up(action))
    }

    /// The same without some of its steps.
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
                // Long enough for a drain to give up, now and then.
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
            97..98 => Action::Truncate { topic, partition },
            98..99 => Action::Pause { process, topic, partition, time },
            _ => Action::ReturnTwice { process },
        }
    }

    fn is_graceful(&self) -> bool {
        match self {
            Action::Produce { .. }
            | Action::Markers { .. }
            | Action::Start { .. }
            | Action::Stop { .. }
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
        let Self { seed, protocol, partitions, metadata, steps } = self;
        writeln!(f, "seed {seed}: {protocol:?}, {partitions} partitions, committed metadata: {metadata}")?;
        for (at, action) in steps {
            writeln!(f, "  at {:>8.3} s  {action:?}", at.as_secs_f64())?;
        }
        Ok(())
    }
}
