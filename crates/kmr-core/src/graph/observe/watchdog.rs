//! What the watchdog does about a partition that makes no progress (L2). Pure: observations and
//! times are passed in.
//!
//! Invariants:
//! 1. Only progress past the record closes a case. A moment without unfinished records, as after a
//!    restart, does not. A partition whose records wait long but make progress, with a slow sink,
//!    is neither logged nor restarted: its age counts from the last progress.
//! 2. Each recovery gets as much time as the one before it: restart the partition, then the client,
//!    then end the consumer.
//! 3. Records whose delivery or mapper is being retried are left to the retry policy. They are
//!    logged but never restarted.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::record::TopicPartition;

/// When the watchdog acts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchdogThresholds {
    pub(crate) warn_after: Duration,
    pub(crate) restart_after: Option<Duration>,
}

/// What a health check found about one partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observation {
    /// The oldest record that is read and not finished, and how long it has been unfinished in this
    /// assignment.
    pub(crate) oldest: Option<(i64, Duration)>,
    /// The last offset that was committed in this assignment.
    pub(crate) committed: Option<i64>,
    /// A retry policy or a running operation decides how long this may take.
    pub(crate) excused: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) warn: bool,
    pub(crate) recovery: Option<Recovery>,
    /// How long the oldest record has been unfinished and the oldest.
    pub(crate) age: Duration,
}

/// Recoveries, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Recovery {
    RestartPartition,
    NewClient,
    End,
}

impl Recovery {
    /// Its name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RestartPartition => "restart_partition",
            Self::NewClient => "new_client",
            Self::End => "end",
        }
    }
}

/// The oldest record of a partition.
#[derive(Debug)]
struct Case {
    offset: i64,
    /// Since when it has been the oldest. Longer ago than the first observation, if the record is
    /// older than that.
    oldest_since: Instant,
    /// Since when it has been the oldest without a retry and without a recovery.
    since: Instant,
    warn_at: Duration,
    recoveries: u32,
}

/// The cases of all partitions. Outlives assignments and clients, because recoveries end both.
#[derive(Debug, Default)]
pub(crate) struct ProgressWatch {
    cases: BTreeMap<TopicPartition, Case>,
}

impl ProgressWatch {
    /// Closes the cases of partitions that other members own now.
    pub(crate) fn forget(&mut self, partitions: &[TopicPartition]) {
        self.cases.retain(|partition, _| !partitions.contains(partition));
    }

    /// Receives an observation and returns what to do about the partition.
    pub(crate) fn check(
        &mut self,
        partition: &TopicPartition,
        seen: Observation,
        thresholds: WatchdogThresholds,
        now: Instant,
    ) -> Action {
        let WatchdogThresholds { warn_after, restart_after } = thresholds;
        let passed = |case: &Case| {
            let is_past = |offset: i64| offset > case.offset;
            seen.committed.is_some_and(is_past) || seen.oldest.is_some_and(|(offset, _)| is_past(offset))
        };
        let mut action = Action::default();
        let Some((offset, age)) = seen.oldest else {
            self.cases.retain(|of, case| of != partition || !passed(case));
            return action;
        };
        let oldest_since = now.checked_sub(age).unwrap_or(now);
        let new = Case { offset, oldest_since, since: now, warn_at: warn_after, recoveries: 0 };
        let case = self.cases.entry(partition.clone()).or_insert(new);
        if passed(case) {
            (case.offset, case.oldest_since, case.since, case.recoveries) = (offset, now, now, 0);
        }
        let age = age.min(now.duration_since(case.oldest_since));
        action.age = age;
        if seen.excused {
            case.since = now;
        }
        if age < warn_after {
            case.warn_at = warn_after; // it makes progress or was restarted: the time starts again
            return action;
        }
        if age >= case.warn_at {
            action.warn = true;
            case.warn_at = age * 2;
        }
        if restart_after.is_some_and(|restart_after| age.min(now.duration_since(case.since)) >= restart_after)
        {
            (case.since, case.recoveries) = (now, case.recoveries + 1);
            action.recovery = Some(match case.recoveries {
                1 => Recovery::RestartPartition,
                2 => Recovery::NewClient,
                _ => Recovery::End,
            });
        }
        action
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESTART_AFTER: u64 = 900;
    const THRESHOLDS: WatchdogThresholds = WatchdogThresholds {
        warn_after: Duration::from_secs(60),
        restart_after: Some(Duration::from_secs(RESTART_AFTER)),
    };

    /// A watchdog, its start, and the seconds since then.
    struct Scene(ProgressWatch, Instant, u64);

    impl Scene {
        fn new() -> Self {
            Self(ProgressWatch::default(), Instant::now(), 0)
        }

        /// A second passes, then this is observed.
        fn observe(&mut self, oldest: Option<(i64, u64)>, committed: Option<i64>, excused: bool) -> Action {
            self.2 += 1;
            let oldest = oldest.map(|(offset, age)| (offset, Duration::from_secs(age)));
            let (seen, now) =
                (Observation { oldest, committed, excused }, self.1 + Duration::from_secs(self.2));
            self.0.check(&TopicPartition::new("t", 0), seen, THRESHOLDS, now)
        }
    }

    #[test]
    fn warnings_come_at_growing_intervals() {
        let mut scene = Scene::new();
        let warned: Vec<u64> =
            (0..890).filter(|second| scene.observe(Some((7, *second)), None, false).warn).collect();
        assert_eq!(warned, [60, 120, 240, 480]);
    }

    #[test]
    fn recoveries_escalate_until_there_is_progress_past_the_record() {
        let mut scene = Scene::new();
        for expected in [Recovery::RestartPartition, Recovery::NewClient, Recovery::End] {
            for age in 0..RESTART_AFTER {
                assert_eq!(scene.observe(Some((7, age)), None, false).recovery, None);
            }
            assert_eq!(scene.observe(Some((7, RESTART_AFTER)), None, false).recovery, Some(expected));
            assert_eq!(scene.observe(None, Some(7), false), Action::default(), "a restart is no progress");
        }
        assert_eq!(scene.observe(None, Some(8), false), Action::default());
        (0..RESTART_AFTER)
            .for_each(|age| assert_eq!(scene.observe(Some((7, age)), None, false).recovery, None));
        let action = scene.observe(Some((7, RESTART_AFTER)), None, false);
        assert_eq!(action.recovery, Some(Recovery::RestartPartition), "a new case");
    }

    #[test]
    fn retried_records_are_logged_and_their_time_starts_again_afterwards() {
        let mut scene = Scene::new();
        let seen: Vec<Action> = (0..9000).map(|age| scene.observe(Some((7, age)), None, true)).collect();
        assert!(seen.iter().all(|action| action.recovery.is_none()) && seen.iter().any(|action| action.warn));
        assert_eq!(scene.observe(Some((7, 9001)), None, false).recovery, None);
    }

    #[test]
    fn a_partition_that_makes_progress_is_neither_logged_nor_restarted() {
        let mut scene = Scene::new();
        scene.observe(Some((0, 0)), None, false);
        let seen: Vec<Action> =
            (1..9000).map(|step| scene.observe(Some((step, 5000)), Some(step), false)).collect();
        assert!(seen.iter().all(|action| !action.warn && action.recovery.is_none()));
        assert!(seen.iter().all(|action| action.age == Duration::ZERO), "the age counts from the progress");
        let stuck: Vec<Action> = (0..61).map(|_| scene.observe(Some((9000, 5000)), None, false)).collect();
        assert!(stuck[..60].iter().all(|action| !action.warn), "9000 has been the oldest for less than 60 s");
        assert_eq!((stuck[60].warn, stuck[60].age), (true, Duration::from_secs(60)));
    }
}
