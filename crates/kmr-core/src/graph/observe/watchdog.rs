//! What is done about a partition that does not get on (L2). Pure: what was seen, and how long it has been so, comes from outside.
//!
//! Invariants:
//! 1. Only progress past the record ends a case: that nothing is unfinished for a moment, as after a restart, does not.
//!    Records that are late but get on, behind a slow sink, are warned of, never treated.
//! 2. Each treatment gets as much time as the one before it: restart the partition, then the client, then end.
//! 3. Records whose delivery, or whose mapper, is being tried again are the retry policy's business: they are warned of, never treated.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::record::TopicPartition;

/// The thresholds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchdogThresholds {
    pub(crate) warn_after: Duration,
    pub(crate) heal_after: Option<Duration>,
}

/// What was seen of one partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// The oldest record that is read and not finished, and for how long it has been so in this assignment.
    pub(crate) oldest: Option<(i64, Duration)>,
    /// The offset committed last in this assignment.
    pub(crate) committed: Option<i64>,
    /// Somebody else's patience decides.
    pub(crate) excused: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) warn: bool,
    pub(crate) treatment: Option<Treatment>,
}

/// In the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Treatment {
    RestartPartition,
    NewClient,
    End,
}

/// The oldest record of a partition.
#[derive(Debug)]
struct Case {
    offset: i64,
    /// Since when it has been the oldest, nobody was trying again, and nothing was done about it.
    since: Instant,
    warn_at: Duration,
    treated: u32,
}

/// The cases of all partitions. Outlives assignments and clients: treatments end both.
#[derive(Debug, Default)]
pub(crate) struct ProgressWatch {
    cases: BTreeMap<TopicPartition, Case>,
}

impl ProgressWatch {
    /// Partitions that went to somebody else are their business.
    pub(crate) fn forget(&mut self, partitions: &[TopicPartition]) {
        self.cases.retain(|partition, _| !partitions.contains(partition));
    }

    pub(crate) fn judge(
        &mut self,
        partition: &TopicPartition,
        seen: Seen,
        thresholds: WatchdogThresholds,
        now: Instant,
    ) -> Verdict {
        let WatchdogThresholds { warn_after, heal_after } = thresholds;
        let passed = |case: &Case| {
            let is_past = |offset: i64| offset > case.offset;
            seen.committed.is_some_and(is_past) || seen.oldest.is_some_and(|(offset, _)| is_past(offset))
        };
        let mut verdict = Verdict::default();
        let Some((offset, age)) = seen.oldest else {
            self.cases.retain(|of, case| of != partition || !passed(case));
            return verdict;
        };
        let new = Case { offset, since: now, warn_at: warn_after, treated: 0 };
        let case = self.cases.entry(partition.clone()).or_insert(new);
        if passed(case) {
            (case.offset, case.since, case.treated) = (offset, now, 0);
        }
        if seen.excused {
            case.since = now;
        }
        if age < warn_after {
            case.warn_at = warn_after; // the partition gets on, or was treated: the time counts anew
            return verdict;
        }
        if age >= case.warn_at {
            verdict.warn = true;
            case.warn_at = age * 2;
        }
        if heal_after.is_some_and(|heal_after| age.min(now.duration_since(case.since)) >= heal_after) {
            (case.since, case.treated) = (now, case.treated + 1);
            verdict.treatment = Some(match case.treated {
                1 => Treatment::RestartPartition,
                2 => Treatment::NewClient,
                _ => Treatment::End,
            });
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAL_AFTER: u64 = 900;
    const THRESHOLDS: WatchdogThresholds = WatchdogThresholds {
        warn_after: Duration::from_secs(60),
        heal_after: Some(Duration::from_secs(HEAL_AFTER)),
    };

    /// A watchdog, and the second at which it looks.
    struct Scene(ProgressWatch, Instant, u64);

    impl Scene {
        fn new() -> Self {
            Self(ProgressWatch::default(), Instant::now(), 0)
        }

        /// A second passes; then this is seen.
        fn see(&mut self, oldest: Option<(i64, u64)>, committed: Option<i64>, excused: bool) -> Verdict {
            self.2 += 1;
            let oldest = oldest.map(|(offset, age)| (offset, Duration::from_secs(age)));
            let (seen, now) = (Seen { oldest, committed, excused }, self.1 + Duration::from_secs(self.2));
            self.0.judge(&TopicPartition::new("t", 0), seen, THRESHOLDS, now)
        }
    }

    #[test]
    fn warnings_come_at_growing_intervals() {
        let mut scene = Scene::new();
        let warned: Vec<u64> =
            (0..890).filter(|second| scene.see(Some((7, *second)), None, false).warn).collect();
        assert_eq!(warned, [60, 120, 240, 480]);
    }

    #[test]
    fn treatments_follow_each_other_until_the_record_is_past() {
        let mut scene = Scene::new();
        for expected in [Treatment::RestartPartition, Treatment::NewClient, Treatment::End] {
            for age in 0..HEAL_AFTER {
                assert_eq!(scene.see(Some((7, age)), None, false).treatment, None);
            }
            assert_eq!(scene.see(Some((7, HEAL_AFTER)), None, false).treatment, Some(expected));
            assert_eq!(scene.see(None, Some(7), false), Verdict::default(), "a restart is no progress");
        }
        assert_eq!(scene.see(None, Some(8), false), Verdict::default());
        (0..HEAL_AFTER).for_each(|age| assert_eq!(scene.see(Some((7, age)), None, false).treatment, None));
        let verdict = scene.see(Some((7, HEAL_AFTER)), None, false);
        assert_eq!(verdict.treatment, Some(Treatment::RestartPartition), "a new case");
    }

    #[test]
    fn what_is_being_tried_again_is_warned_of_and_its_time_counts_anew_afterwards() {
        let mut scene = Scene::new();
        let seen: Vec<Verdict> = (0..9000).map(|age| scene.see(Some((7, age)), None, true)).collect();
        assert!(
            seen.iter().all(|verdict| verdict.treatment.is_none()) && seen.iter().any(|verdict| verdict.warn)
        );
        assert_eq!(scene.see(Some((7, 9001)), None, false).treatment, None);
    }

    #[test]
    fn a_slow_sink_that_gets_on_is_warned_of_now_and_then_and_never_treated() {
        let mut scene = Scene::new();
        let seen: Vec<Verdict> =
            (0..9000).map(|step| scene.see(Some((step, 5000)), Some(step), false)).collect();
        assert_eq!(seen.iter().filter(|verdict| verdict.warn).count(), 1);
        assert!(seen.iter().all(|verdict| verdict.treatment.is_none()));
    }
}
