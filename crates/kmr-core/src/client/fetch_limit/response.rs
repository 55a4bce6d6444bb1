//! The limit of `fetch.max.bytes`: how much a fetch response may hold, compressed.
//!
//! Invariants:
//! 1. The limit times the last measured weight per byte is at most the target.
//! 2. A limit at which a partition's share of a response exceeded [`Heaviest::ALLOWED`] shrinks, so
//!    that the share fits. It grows again slowly. A batch is always whole: a share that does not
//!    shrink with the limit is one batch.
//! 3. It does not grow while a partition that has records was not received at all, for
//!    [`PATIENCE`] reports. Its records may compress far better than those of the others.
//! 4. The limit grows to a fraction of the received bytes at most. Without fetches it returns to
//!    the start, because nothing is known about the next records of a quiet topic.

use super::sizes::less;
use crate::config::largest_fetch;

/// The limit of a new client. Batches of a megabyte of equal bytes are 140 bytes in zstd, so this
/// is 30 MB of them.
const START: usize = 4 << 10;
/// The lowest limit. Most batches are larger, and a response then holds one.
const LEAST: usize = 1_000;
/// The limit grows to the bytes between two statistics divided by this. So a response is small
/// against the records that its weight is estimated from, and a client that receives much fetches
/// about this often between two statistics.
const FETCHES_PER_INTERVAL: u64 = 16;

/// Reports for which partitions without a received record keep the limit from growing: five
/// seconds, by default. A partition can be paused, and its leader can be unavailable.
const PATIENCE: u32 = 10;

/// The bytes that a response may unpack to, including librdkafka's memory per record.
fn target(prefetch_bytes: usize) -> usize {
    prefetch_bytes / 16
}

/// What was received since the last statistics.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// Bytes of all responses, as on the wire.
    pub(super) wire_bytes: u64,
    /// Their memory.
    pub(super) weight: u64,
    /// Memory of the most that one response had of one partition.
    pub(super) share: u64,
    /// Bytes of the largest record that was polled lately.
    pub(super) largest_record: u64,
    /// Whether a partition that has records was not received at all.
    pub(super) has_unread: bool,
}

/// The limit of one client, in bytes.
#[derive(Debug)]
pub(super) struct ResponseLimit {
    limit: usize,
    largest: usize,
    target: usize,
    heaviest: Heaviest,
    /// Reports in a row with a partition that was not received at all.
    unread: u32,
}

impl ResponseLimit {
    /// The limit of a client that may hold `prefetch_bytes`.
    pub(super) fn new(prefetch_bytes: usize) -> Self {
        let (target, largest) = (target(prefetch_bytes), largest_fetch(prefetch_bytes));
        Self { limit: START, largest, target, heaviest: Heaviest::default(), unread: 0 }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns to the start, because nothing is known of the partitions that are added now.
    pub(super) fn restart(&mut self) {
        self.limit = self.limit.min(START);
        self.unread = 0;
    }

    /// Adapts the limit.
    pub(super) fn observe(&mut self, received: &Received) {
        self.unread = if received.has_unread { self.unread.saturating_add(1) } else { 0 };
        let largest = if (1..=PATIENCE).contains(&self.unread) { self.limit } else { self.largest };
        let allowed = Heaviest::ALLOWED * self.target as u64;
        // A record is never split. Twice that, so that the limit can grow.
        let allowed = allowed.max(2 * received.largest_record);
        self.heaviest.observe(received.share, self.limit as u64, allowed);
        self.limit = self.next(received).min(self.heaviest.limit(allowed)).clamp(LEAST, largest);
    }

    /// The limit after `received`, by the mean weight of all partitions.
    fn next(&self, received: &Received) -> usize {
        let fetches = received.wire_bytes / self.limit as u64;
        let share = usize::try_from(received.wire_bytes / FETCHES_PER_INTERVAL).unwrap_or(usize::MAX);
        let grown = share.max(if fetches == 0 { self.limit / 2 } else { self.limit });
        // Records that weigh less than one full response are too small a sample to raise the limit.
        let aim = if received.weight < self.target as u64 {
            self.limit.max(START)
        } else {
            let aim = self.target as u128 * u128::from(received.wire_bytes) / u128::from(received.weight);
            usize::try_from(aim).unwrap_or(usize::MAX)
        };
        let least = if fetches == 0 { START.min(self.limit) } else { LEAST };
        grown.max(least).min(aim)
    }
}

/// The heaviest share of a response that one partition had.
///
/// The statistics do not show how many bytes of a partition came over the wire. But they show its
/// largest share of a response, unpacked, and the wire bytes of a share are at most the limit.
#[derive(Debug, Default)]
struct Heaviest {
    share: u64,
    /// The limit when it came.
    limit: u64,
    /// Memory for 1024 bytes of the limit. 0: nothing was received yet.
    weight: u64,
}

impl Heaviest {
    /// A share may be this many times the target. Shares of partitions that compress equally well
    /// stay below it.
    const ALLOWED: u64 = 4;

    fn observe(&mut self, share: u64, limit: u64, allowed: u64) {
        if share == 0 {
            return;
        }
        // A share that is as large as before, with a lower limit, is one batch, or it was requested
        // before the limit changed. An even lower limit would not help.
        if share > allowed && share <= self.share.saturating_mul(5) / 4 && limit <= self.limit {
            return;
        }
        let weight = (share.saturating_mul(1024) / limit).max(1);
        // A share that is as large as before, with a higher limit, shows that it is less heavy. If
        // it is smaller, the heavy partition may have had no records.
        if weight >= less(self.weight) || share >= self.share / 4 * 3 {
            *self = Self { share, limit, weight };
        } else {
            *self = Self { share: share.max(less(self.share)), limit, weight: less(self.weight) };
        }
    }

    /// The highest limit at which the share fits into `allowed`.
    fn limit(&self, allowed: u64) -> usize {
        let limit = allowed.saturating_mul(1024).checked_div(self.weight);
        limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::RECORD_OVERHEAD;

    const PREFETCH: usize = 16 << 20;
    const OVERHEAD: u64 = RECORD_OVERHEAD as u64;

    /// A partition with a backlog. Its records are `ratio` times smaller on the wire.
    #[derive(Clone, Copy)]
    struct Partition {
        ratio: u64,
        record_bytes: u64,
        /// Bytes of a batch, as on the wire.
        batch: u64,
    }

    impl Partition {
        fn new(ratio: u64, record_bytes: u64, batch: u64) -> Self {
            Self { ratio, record_bytes, batch }
        }

        fn weight(self, wire_bytes: u64) -> u64 {
            wire_bytes * self.ratio * (self.record_bytes + OVERHEAD) / self.record_bytes
        }

        /// A response to a request with this limit: whole batches, one at least.
        fn response(self, limit: usize) -> u64 {
            (limit as u64 / self.batch).max(1) * self.batch
        }
    }

    /// Receives one response of each partition in turn, until `wire_bytes`.
    fn interval(limit: &mut ResponseLimit, partitions: &[Partition], wire_bytes: u64) -> usize {
        let mut received =
            Received { wire_bytes: 0, weight: 0, share: 0, largest_record: 0, has_unread: false };
        for partition in partitions.iter().cycle() {
            let response = partition.response(limit.limit());
            received.wire_bytes += response;
            received.weight += partition.weight(response);
            received.share = received.share.max(partition.weight(response));
            received.largest_record = received.largest_record.max(partition.record_bytes);
            if received.wire_bytes >= wire_bytes {
                break;
            }
        }
        limit.observe(&received);
        limit.limit()
    }

    /// Several intervals of a client that receives `wire_bytes` in each.
    fn limits(partitions: &[Partition], wire_bytes: u64, intervals: usize) -> Vec<usize> {
        let mut limit = ResponseLimit::new(PREFETCH);
        (0..intervals).map(|_| interval(&mut limit, partitions, wire_bytes)).collect()
    }

    /// The limit of a topic whose partitions compress equally well, by the mean alone.
    fn by_the_mean(partition: Partition) -> usize {
        let fits = target(PREFETCH) as u64 * (1 << 20) / partition.weight(1 << 20);
        usize::try_from(fits).unwrap().clamp(LEAST, largest_fetch(PREFETCH))
    }

    #[test]
    fn partitions_that_compress_equally_well_have_the_limit_of_their_mean() {
        for (ratio, record_bytes) in [(1, 200), (3, 1_000), (30, 1_000), (300, 1 << 20), (7_000, 1 << 20)] {
            // Batches of one record, of 16 KB and of 1 MB, unpacked.
            for (unpacked, after) in [(record_bytes, 0), (16 << 10, 0), (1 << 20, 14)] {
                let unpacked = unpacked.max(record_bytes);
                let partition = Partition::new(ratio, record_bytes, (unpacked / ratio).max(1));
                let limits = limits(&[partition; 64], 50_000_000, 20);
                let allowed = (by_the_mean(partition).saturating_sub(100))..=by_the_mean(partition) + 100;
                assert!(
                    limits[after..].iter().all(|limit| allowed.contains(limit)),
                    "{ratio} {record_bytes} {unpacked}: {limits:?} {allowed:?}"
                );
            }
        }
    }

    #[test]
    fn the_limit_grows_with_what_was_received() {
        let mut limit = ResponseLimit::new(PREFETCH);
        let small = Partition::new(1, 4_000, 4_000);
        let mut grown = |wire_bytes| interval(&mut limit, &[small], wire_bytes);
        assert_eq!(grown(16 * 80_000), 80_000, "a share of what was received");
        assert_eq!(grown(50_000_000), largest_fetch(PREFETCH));
        assert_eq!(grown(16 * 90_000), largest_fetch(PREFETCH), "fetches continue");
    }

    #[test]
    fn records_of_several_megabytes_do_not_shrink_the_limit_of_other_partitions() {
        let large = Partition::new(1, 5_000_000, 5_000_000);
        let small = Partition::new(1, 200, 4_000);
        let limits = limits(&[large, small, small, small], 500_000_000, 12);
        assert!(limits[10] > largest_fetch(PREFETCH) / 4, "{limits:?}");
    }

    #[test]
    fn the_limit_shrinks_at_once_when_records_compress_better() {
        let mut limit = ResponseLimit::new(PREFETCH);
        while interval(&mut limit, &[Partition::new(1, 1_000, 16_000)], 50_000_000) < largest_fetch(PREFETCH)
        {
        }
        let after = interval(&mut limit, &[Partition::new(3_000, 1 << 20, 350)], 1_000_000);
        assert!((300..=1_000).contains(&after), "{after}");
    }

    /// The heavy partition is a small part of what is received, so the mean hides it.
    #[test]
    fn the_share_of_one_heavy_partition_of_64_bounds_the_limit() {
        for ratio in [30, 300, 3_000] {
            let light = Partition::new(1, 1_000, 1_000_000);
            let heavy = Partition::new(ratio, 999_000, 999_000 / ratio);
            let mut partitions = [light; 64];
            partitions[40] = heavy;
            let limits = limits(&partitions, 200_000_000, 20);
            let worst = limits[1..].iter().map(|limit| heavy.weight(heavy.response(*limit))).max().unwrap();
            assert!(worst <= 4 * target(PREFETCH) as u64 + 1_000_000, "{ratio}: {worst} {limits:?}");
            let last = limits[19] as u64;
            assert!(
                last * ratio >= target(PREFETCH) as u64 / 2,
                "no smaller than needed: {ratio}: {limits:?}"
            );
        }
    }

    #[test]
    fn the_limit_returns_slowly_when_the_heavy_partition_has_no_more_records() {
        let light = Partition::new(1, 1_000, 100_000);
        let heavy = Partition::new(3_000, 999_000, 333);
        let mut limit = ResponseLimit::new(PREFETCH);
        for _ in 0..4 {
            interval(&mut limit, &[light, light, light, heavy], 50_000_000);
        }
        assert!(limit.limit() <= 2_000, "{}", limit.limit());
        for _ in 0..8 {
            interval(&mut limit, &[light], 50_000_000);
        }
        let soon = limit.limit();
        for _ in 0..60 {
            interval(&mut limit, &[light], 50_000_000);
        }
        assert!(soon < 8_000 && limit.limit() == largest_fetch(PREFETCH), "{soon} {}", limit.limit());
        // It is as careful when the partition has records again.
        interval(&mut limit, &[light, light, light, heavy], 50_000_000);
        assert!(limit.limit() <= 2_000, "{}", limit.limit());
    }

    #[test]
    fn a_share_that_is_one_batch_does_not_shrink_the_limit_further() {
        // 10 MB of small records in one batch.
        let batch = Partition::new(10, 1_000, 1_000_000);
        let limits = limits(&[batch; 8], 50_000_000, 12);
        assert!(limits[1..].iter().all(|limit| *limit == limits[1]), "{limits:?}");
    }

    #[test]
    fn a_quiet_client_returns_to_the_start_and_does_not_grow() {
        let mut limit = ResponseLimit::new(PREFETCH);
        let small = Partition::new(1, 1_000, 1_000);
        while interval(&mut limit, &[small], 50_000_000) < largest_fetch(PREFETCH) {}
        let quiet = Received {
            wire_bytes: 1_000,
            weight: 1_340,
            share: 1_340,
            largest_record: 1_000,
            has_unread: false,
        };
        let mut quiet = || {
            limit.observe(&quiet);
            limit.limit()
        };
        let limits: Vec<usize> = (0..6).map(|_| quiet()).collect();
        assert_eq!(limits, [256 << 10, 128 << 10, 64 << 10, 32 << 10, 16 << 10, 8 << 10]);
        assert_eq!([quiet(), quiet()], [START; 2]);
    }

    #[test]
    fn a_limit_stays_low_without_fetches() {
        let mut limit = ResponseLimit::new(PREFETCH);
        let low = interval(&mut limit, &[Partition::new(7_000, 1 << 20, 150)], 1_000_000);
        limit.observe(&Received { wire_bytes: 0, weight: 0, share: 0, largest_record: 0, has_unread: false });
        assert_eq!((low, limit.limit()), (LEAST, LEAST));
    }

    #[test]
    fn the_limit_waits_for_partitions_that_were_not_received() {
        let mut limit = ResponseLimit::new(PREFETCH);
        let light = Received {
            wire_bytes: 50_000_000,
            weight: 60_000_000,
            share: 4_000,
            largest_record: 1_000,
            has_unread: true,
        };
        for _ in 0..PATIENCE {
            limit.observe(&light);
            assert_eq!(limit.limit(), START);
        }
        limit.observe(&light);
        assert_eq!(limit.limit(), largest_fetch(PREFETCH), "not for ever");
        limit.restart();
        assert_eq!(limit.limit(), START);
        limit.observe(&light);
        assert_eq!(limit.limit(), START, "after each assignment");
        limit.observe(&Received { has_unread: false, ..light });
        assert_eq!(limit.limit(), largest_fetch(PREFETCH));
        limit.observe(&light);
        assert_eq!(limit.limit(), largest_fetch(PREFETCH), "a new record elsewhere does not shrink it");
    }
}
