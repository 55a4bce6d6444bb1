//! Samples a consumer's counters: the times of the first and last record, and whether it is idle.

use std::time::{Duration, Instant};

use kmr_core::Stats;

/// The samples so far. It has no clock: callers pass the time.
#[derive(Debug)]
pub(crate) struct IdleWatch {
    until_idle: Option<Duration>,
    /// Time of the last record, or since when every partition has been read to its end. `None`
    /// before that.
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

    /// Adds a sample. Returns true once, when the consumer has been idle for the limit. While a
    /// partition has not been read to its end (`caught_up`), records may still come.
    pub(crate) fn sample(&mut self, stats: &Stats, caught_up: bool, now: Instant) -> bool {
        if stats.records > self.records {
            self.records = stats.records;
            self.first.get_or_insert(now);
            self.last = Some(now);
            self.idle_since = None;
        }
        if caught_up {
            self.idle_since.get_or_insert(now);
        } else {
            self.idle_since = None;
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

    fn stats(records: u64) -> Stats {
        let mut stats = Stats::default();
        stats.records = records;
        stats
    }

    #[test]
    fn idleness_counts_from_the_end_of_all_partitions_or_the_last_record() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = IdleWatch::new(Some(Duration::from_secs(3)));
        assert!(!watch.sample(&stats(0), false, at(0)));
        assert!(!watch.sample(&stats(0), false, at(60)), "joining and the first fetch may take long");
        assert!(!watch.sample(&stats(10), false, at(63)));
        assert!(!watch.sample(&stats(10), false, at(70)), "nothing is known of another partition");
        assert!(!watch.sample(&stats(10), true, at(71)));
        assert!(!watch.sample(&stats(25), true, at(73)));
        assert!(!watch.sample(&stats(25), true, at(75)));
        assert!(watch.sample(&stats(25), true, at(76)));
        assert!(!watch.sample(&stats(25), true, at(77)), "it reports it once");
        assert_eq!(watch.active(), Duration::from_secs(10));
    }

    #[test]
    fn a_rebalance_interrupts_idleness() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = IdleWatch::new(Some(Duration::from_secs(3)));
        assert!(!watch.sample(&stats(0), true, at(0)));
        assert!(!watch.sample(&stats(0), false, at(2)));
        assert!(!watch.sample(&stats(0), true, at(4)));
        assert!(!watch.sample(&stats(0), true, at(6)));
        assert!(watch.sample(&stats(0), true, at(7)));
    }

    #[test]
    fn without_a_limit_it_never_ends() {
        let mut watch = IdleWatch::new(None);
        let start = Instant::now();
        assert!(!watch.sample(&stats(0), true, start));
        assert!(!watch.sample(&stats(0), true, start + Duration::from_secs(1_000_000)));
    }
}
