//! Samples a consumer's counters: the times of the first and last record, and whether it is idle.

use std::time::{Duration, Instant};

use kmr_core::Stats;

/// The samples so far. It has no clock: callers pass the time.
#[derive(Debug)]
pub(crate) struct IdleWatch {
    until_idle: Option<Duration>,
    /// Time of the last record, or of the first assignment; `None` before it.
    idle_since: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
    records: u64,
    stopping: bool,
}

impl IdleWatch {
    pub(crate) fn new(until_idle: Option<Duration>) -> Self {
        Self { until_idle, idle_since: None, first: None, last: None, records: 0, stopping: false }
    }

    /// Adds a sample. Returns true once, when the consumer has been idle for the limit.
    pub(crate) fn sample(&mut self, stats: &Stats, now: Instant) -> bool {
        if stats.records > self.records {
            self.records = stats.records;
            self.first.get_or_insert(now);
            self.last = Some(now);
            self.idle_since = Some(now);
        } else if stats.rebalances > 0 {
            self.idle_since.get_or_insert(now);
        }
        let (Some(limit), Some(since)) = (self.until_idle, self.idle_since) else { return false };
        if self.stopping || now.duration_since(since) < limit {
            return false;
        }
        self.stopping = true;
        true
    }

    /// Time from the first records to the last.
    pub(crate) fn active(&self) -> Duration {
        self.first.zip(self.last).map_or(Duration::ZERO, |(first, last)| last.duration_since(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(records: u64, rebalances: u64) -> Stats {
        let mut stats = Stats::default();
        (stats.records, stats.rebalances) = (records, rebalances);
        stats
    }

    #[test]
    fn idleness_counts_from_the_assignment_or_the_last_record() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = IdleWatch::new(Some(Duration::from_secs(3)));
        assert!(!watch.sample(&stats(0, 0), at(0)));
        assert!(!watch.sample(&stats(0, 0), at(60)), "joining the group may take long");
        assert!(!watch.sample(&stats(0, 1), at(61)));
        assert!(!watch.sample(&stats(10, 1), at(63)));
        assert!(!watch.sample(&stats(25, 1), at(65)));
        assert!(!watch.sample(&stats(25, 1), at(67)));
        assert!(watch.sample(&stats(25, 1), at(68)));
        assert!(!watch.sample(&stats(25, 1), at(69)), "it reports it once");
        assert_eq!(watch.active(), Duration::from_secs(2));
    }

    #[test]
    fn without_a_limit_it_never_ends() {
        let mut watch = IdleWatch::new(None);
        let start = Instant::now();
        assert!(!watch.sample(&stats(0, 1), start));
        assert!(!watch.sample(&stats(0, 1), start + Duration::from_secs(1_000_000)));
    }
}
