//! What is done about a partition that does not get on (L2). Pure: what was seen, and how long it has been so, comes from outside.
//!
//! Invariants:
//! 1. Only progress past the record ends a case: that nothing is unfinished for a moment, as after a restart, does not.
//! 2. Each treatment gets as much time as the one before it: restart the partition, then the client, then end.
//! 3. Records whose delivery, or whose mapper, is being tried again are the retry policy's business: they are warned of, never treated.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::record::TopicPartition;

/// The thresholds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thresholds {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    RestartPartition,
    NewClient,
    End,
}

/// A record that is late.
#[derive(Debug)]
struct Case {
    offset: i64,
    warn_at: Duration,
    treated: u32,
}

/// The cases of all partitions. Outlives assignments and clients: treatments end both.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    cases: BTreeMap<TopicPartition, Case>,
}

impl Watchdog {
    /// Partitions that went to somebody else are their business.
    pub(crate) fn forget(&mut self, partitions: &[TopicPartition]) {
        self.cases.retain(|partition, _| !partitions.contains(partition));
    }

    pub(crate) fn judge(
        &mut self,
        partition: &TopicPartition,
        seen: Seen,
        thresholds: Thresholds,
    ) -> Verdict {
        if let Some(case) = self.cases.get(partition) {
            let passed = |offset: i64| offset > case.offset;
            if seen.committed.is_some_and(passed) || seen.oldest.is_some_and(|(offset, _)| passed(offset)) {
                self.cases.remove(partition);
            }
        }
        let mut verdict = Verdict::default();
        let Some((offset, age)) = seen.oldest else { return verdict };
        if age < thresholds.warn_after {
            if let Some(case) = self.cases.get_mut(partition) {
                case.warn_at = thresholds.warn_after; // it was treated: its time counts anew
            }
            return verdict;
        }
        let new = Case { offset, warn_at: thresholds.warn_after, treated: 0 };
        let case = self.cases.entry(partition.clone()).or_insert(new);
        if age >= case.warn_at {
            verdict.warn = true;
            case.warn_at = age * 2;
        }
        if !seen.excused && thresholds.heal_after.is_some_and(|heal_after| age >= heal_after) {
            case.treated += 1;
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

    const THRESHOLDS: Thresholds =
        Thresholds { warn_after: Duration::from_secs(60), heal_after: Some(Duration::from_secs(900)) };

    fn seen(offset: i64, seconds: u64) -> Seen {
        Seen { oldest: Some((offset, Duration::from_secs(seconds))), committed: None, excused: false }
    }

    fn judge(watchdog: &mut Watchdog, seen: Seen) -> Verdict {
        watchdog.judge(&TopicPartition::new("t", 0), seen, THRESHOLDS)
    }

    #[test]
    fn warnings_come_at_growing_intervals() {
        let mut watchdog = Watchdog::default();
        let warned: Vec<u64> =
            (0..890).filter(|second| judge(&mut watchdog, seen(7, *second)).warn).collect();
        assert_eq!(warned, [60, 120, 240, 480]);
    }

    #[test]
    fn treatments_follow_each_other_until_the_record_is_past() {
        let mut watchdog = Watchdog::default();
        for expected in [Treatment::RestartPartition, Treatment::NewClient, Treatment::End] {
            assert_eq!(judge(&mut watchdog, seen(7, 899)).treatment, None);
            assert_eq!(judge(&mut watchdog, seen(7, 900)).treatment, Some(expected));
            let nothing = Seen { oldest: None, committed: Some(7), excused: false };
            assert_eq!(judge(&mut watchdog, nothing), Verdict::default(), "a restart is no progress");
            assert_eq!(judge(&mut watchdog, seen(5, 3)), Verdict::default());
        }
        let past = Seen { oldest: None, committed: Some(8), excused: false };
        assert_eq!(judge(&mut watchdog, past), Verdict::default());
        assert_eq!(judge(&mut watchdog, seen(7, 900)).treatment, Some(Treatment::RestartPartition));
    }

    #[test]
    fn what_is_being_tried_again_is_warned_of_and_never_treated() {
        let mut watchdog = Watchdog::default();
        let verdict = judge(&mut watchdog, Seen { excused: true, ..seen(7, 90_000) });
        assert_eq!(verdict, Verdict { warn: true, treatment: None });
    }
}
