//! The limit of `queued.min.messages`: how many records librdkafka may hold.
//!
//! librdkafka bounds the bytes of its queue by payloads alone. So the number of records bounds what
//! they take besides: keys, headers and librdkafka's own memory.
//!
//! Invariants:
//! 1. The limit times the last measured weight of a record is at most the prefetch.
//! 2. The limit grows to a few times the received records at most, because no more is known.
//!    Without fetches it shrinks to the start.
//!
//! Polls raise the limit, too. A client of small records would otherwise wait for the next
//! statistics with a queue of [`START`] records, for half a second.

use super::sizes::less;
use super::statistics::Totals;
use crate::config::most_records;

/// The limit of a new client. With keys of 1 MB, this is 100 MB.
const START: usize = 100;
/// The limit grows to the records between two statistics times this. Those last half a second, so a
/// queue of them does not run dry.
const INTERVALS: u64 = 4;

/// The limit of one client, in records.
#[derive(Debug)]
pub(super) struct PrefetchLimit {
    limit: usize,
    prefetch_bytes: usize,
    /// Memory of a record.
    weight: u64,
}

impl PrefetchLimit {
    pub(super) fn new(prefetch_bytes: usize) -> Self {
        Self { limit: START.min(most_records(prefetch_bytes)), prefetch_bytes, weight: 0 }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Adapts the limit to what was received since the last statistics. `per_record`: the memory of
    /// a record besides its content.
    pub(super) fn observe(&mut self, received: &Totals, per_record: u64) {
        if received.records == 0 {
            self.limit = self.limit.min(START.max(self.limit / 2));
            return;
        }
        // What is not compressed takes at least what it took on the wire, also headers that no poll
        // has returned yet.
        let weight = received.weight(per_record).max(received.wire_bytes) / received.records;
        self.weight = weight.max(less(self.weight));
        self.limit = self.limit.max(known(received.records)).min(self.fitting(self.weight)).max(1);
    }

    /// Raises the limit. `records` were polled since the last statistics, and the largest of them
    /// takes `largest` bytes of memory.
    pub(super) fn polled(&mut self, records: u64, largest: u64) {
        let raised = known(records).min(self.fitting(self.weight.max(largest)));
        self.limit = self.limit.max(raised);
    }

    /// How many records of `weight` bytes fit into the prefetch.
    fn fitting(&self, weight: u64) -> usize {
        let fits = self.prefetch_bytes / usize::try_from(weight).unwrap_or(usize::MAX).max(1);
        fits.min(most_records(self.prefetch_bytes))
    }
}

/// The limit for a client that has received `records`.
fn known(records: u64) -> usize {
    usize::try_from(records.saturating_mul(INTERVALS)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::RECORD_OVERHEAD;

    const PREFETCH: usize = 16 << 20;
    const OVERHEAD: u64 = RECORD_OVERHEAD as u64;

    fn received(records: u64, record_bytes: u64) -> Totals {
        Totals { wire_bytes: records * record_bytes / 3, content_bytes: records * record_bytes, records }
    }

    #[test]
    fn records_of_a_usual_size_have_the_whole_prefetch_after_one_report() {
        for record_bytes in [0, 20, 200] {
            let mut limit = PrefetchLimit::new(PREFETCH);
            assert_eq!(limit.limit(), START);
            limit.observe(&received(20_000, record_bytes), OVERHEAD);
            assert_eq!(limit.limit(), most_records(PREFETCH), "{record_bytes}");
        }
        // The payloads of larger ones reach `queued.max.messages.kbytes` first.
        let mut limit = PrefetchLimit::new(PREFETCH);
        limit.observe(&received(20_000, 1_000), OVERHEAD);
        assert!(limit.limit() * 1_000 > PREFETCH / 4 * 3 - (1 << 20), "{}", limit.limit());
    }

    #[test]
    fn keys_and_headers_count() {
        let mut limit = PrefetchLimit::new(PREFETCH);
        limit.observe(&received(20_000, 200), OVERHEAD);
        limit.observe(&received(2_000, 100_000), OVERHEAD);
        assert!(limit.limit() * 100_000 <= PREFETCH, "large keys: {}", limit.limit());
        let mut limit = PrefetchLimit::new(PREFETCH);
        limit.observe(&received(20_000, 100), OVERHEAD + 4_000);
        assert!(limit.limit() * 4_440 <= PREFETCH, "polled headers: {}", limit.limit());
        let mut limit = PrefetchLimit::new(PREFETCH);
        let wire_bytes = 20_000 * 4_100;
        limit.observe(&Totals { wire_bytes, ..received(20_000, 100) }, OVERHEAD);
        assert!(limit.limit() * 4_100 <= PREFETCH, "headers that no poll has returned: {}", limit.limit());
    }

    #[test]
    fn the_limit_grows_slowly_after_heavy_records_and_with_what_is_received() {
        let mut limit = PrefetchLimit::new(PREFETCH);
        limit.observe(&received(2_000, 100_000), OVERHEAD);
        let mut limits = Vec::new();
        for _ in 0..60 {
            limit.observe(&received(20_000, 200), OVERHEAD);
            limits.push(limit.limit());
        }
        assert!(limits[0] < 200 && limits[7] < 500 && limits[59] == most_records(PREFETCH), "{limits:?}");
        let mut limit = PrefetchLimit::new(PREFETCH);
        limit.observe(&received(50, 200), OVERHEAD);
        assert_eq!(limit.limit(), 200);
        limit.observe(&received(10, 200), OVERHEAD);
        assert_eq!(limit.limit(), 200);
        limit.observe(&received(0, 0), OVERHEAD);
        limit.observe(&received(0, 0), OVERHEAD);
        assert_eq!(limit.limit(), START);
    }

    #[test]
    fn polls_raise_the_limit_between_statistics() {
        let mut limit = PrefetchLimit::new(PREFETCH);
        let weight = OVERHEAD + 200;
        limit.polled(20, weight);
        assert_eq!(limit.limit(), START);
        limit.polled(1_000, weight);
        assert_eq!(limit.limit(), 4_000);
        limit.polled(100_000, weight);
        assert_eq!(limit.limit(), (PREFETCH as u64 / weight) as usize);
        limit.polled(1, weight);
        assert_eq!(limit.limit(), (PREFETCH as u64 / weight) as usize, "polls do not lower it");
        // The largest record bounds it, and the weight of the last statistics.
        let mut limit = PrefetchLimit::new(PREFETCH);
        limit.polled(1_000, 1 << 20);
        assert_eq!(limit.limit(), START);
        limit.observe(&received(20_000, 100_000), OVERHEAD);
        limit.polled(20_000, weight);
        assert!(limit.limit() * 100_000 <= PREFETCH, "{}", limit.limit());
    }

    #[test]
    fn one_record_is_always_allowed() {
        let mut limit = PrefetchLimit::new(1 << 20);
        limit.observe(&received(3, 50 << 20), OVERHEAD);
        assert_eq!(limit.limit(), 1);
        limit.observe(&received(0, 0), OVERHEAD);
        assert_eq!(limit.limit(), 1);
    }
}
