//! Bounds what one fetch response unpacks to, by adapting `fetch.max.bytes`.
//!
//! A broker counts compressed bytes, and librdkafka unpacks a whole response at once. So a client
//! starts with a limit of a few kilobytes. The client's statistics show how much the received bytes
//! weigh in memory. While they weigh little, the limit grows, because many small fetches cost
//! processor time. A response holds at least one batch, however small the limit, so every client
//! makes progress.
//!
//! Invariants:
//! 1. The limit times the last measured weight per byte is at most the target.
//! 2. The limit grows to a fraction of the received bytes at most. Without fetches it returns to
//!    the start, because nothing is known about the next records of a quiet topic.
//! 3. A limit that the user set is never changed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;

use super::native::limits::set_fetch_max_bytes;
use crate::config::largest_fetch;
use crate::error::Error;
use crate::member::RECORD_OVERHEAD;
use crate::telemetry;

/// The limit of a new client. Batches of a megabyte of equal bytes are 140 bytes in zstd, so this
/// is 30 MB of them.
const START: usize = 4 << 10;
/// The lowest limit. Most batches are larger, and a response then holds one.
const LEAST: usize = 1_000;
/// The limit grows to the bytes between two statistics divided by this. So a response is small
/// against the records that its weight is estimated from, and a client that receives much fetches
/// about this often between two statistics.
const FETCHES_PER_INTERVAL: u64 = 16;

/// The bytes that a response may unpack to, including librdkafka's memory per record.
fn target(prefetch_bytes: usize) -> usize {
    prefetch_bytes / 16
}

/// What a client has received since its start, by its statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Totals {
    /// Bytes of all responses, as on the wire.
    wire_bytes: u64,
    /// Bytes of keys and payloads, unpacked.
    content_bytes: u64,
    records: u64,
}

impl Totals {
    /// The totals of librdkafka's statistics, whose JSON has them after its topics.
    fn of(statistics: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(statistics).ok()?;
        let last = |name: &str| {
            let value = &text[text.rfind(name)? + name.len()..];
            value[..value.find(|c: char| !c.is_ascii_digit())?].parse().ok()
        };
        Some(Self {
            wire_bytes: last("\"rx_bytes\":")?,
            content_bytes: last("\"rxmsg_bytes\":")?,
            records: last("\"rxmsgs\":")?,
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            wire_bytes: self.wire_bytes.saturating_sub(before.wire_bytes),
            content_bytes: self.content_bytes.saturating_sub(before.content_bytes),
            records: self.records.saturating_sub(before.records),
        }
    }

    /// Memory of what was received.
    fn weight(&self) -> u64 {
        self.content_bytes + self.records * RECORD_OVERHEAD as u64
    }
}

/// The limit of one client.
#[derive(Debug)]
pub(super) struct FetchLimit(Option<Mutex<State>>);

#[derive(Debug)]
struct State {
    limit: usize,
    largest: usize,
    target: usize,
    before: Totals,
    /// Whether the client does not have the limit yet.
    is_due: bool,
}

impl FetchLimit {
    /// The limit of a client that may hold `prefetch_bytes`.
    pub(super) fn new(prefetch_bytes: usize) -> Self {
        let before = Totals { wire_bytes: 0, content_bytes: 0, records: 0 };
        let (target, largest) = (target(prefetch_bytes), largest_fetch(prefetch_bytes));
        Self(Some(Mutex::new(State { limit: START, largest, target, before, is_due: true })))
    }

    /// The limit is the user's.
    pub(super) fn fixed() -> Self {
        Self(None)
    }

    /// Must be called with each report of statistics.
    pub(super) fn observe(&self, statistics: &[u8]) {
        if let (Some(mut state), Some(totals)) = (self.lock(), Totals::of(statistics)) {
            state.observe(totals);
        }
    }

    /// Gives the client its limit, if it has changed. Must be called regularly. Does not block.
    ///
    /// # Errors
    /// librdkafka rejects the change.
    pub(super) fn apply<C: ClientContext>(&self, client: &rdkafka::client::Client<C>) -> Result<(), Error> {
        let Some(mut state) = self.lock() else { return Ok(()) };
        if std::mem::take(&mut state.is_due) {
            telemetry::fetch_limit(state.limit);
            set_fetch_max_bytes(client, state.limit)
                .map_err(|reason| Error::Config(format!("Kafka setting fetch.max.bytes: {reason}")))?;
        }
        Ok(())
    }

    fn lock(&self) -> Option<MutexGuard<'_, State>> {
        self.0.as_ref().map(|state| state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn observe(&mut self, totals: Totals) {
        let received = totals.since(&std::mem::replace(&mut self.before, totals));
        let limit = self.next(&received);
        self.is_due |= limit != self.limit;
        self.limit = limit;
    }

    /// The limit after `received`.
    fn next(&self, received: &Totals) -> usize {
        let fetches = received.wire_bytes / self.limit as u64;
        let share = usize::try_from(received.wire_bytes / FETCHES_PER_INTERVAL).unwrap_or(usize::MAX);
        let grown = share.max(if fetches == 0 { self.limit / 2 } else { self.limit });
        // Records that weigh less than one full response are too small a sample to raise the limit.
        let aim = if received.weight() < self.target as u64 {
            self.limit.max(START)
        } else {
            let aim = self.target as u128 * u128::from(received.wire_bytes) / u128::from(received.weight());
            usize::try_from(aim).unwrap_or(usize::MAX)
        };
        let least = if fetches == 0 { START.min(self.limit) } else { LEAST };
        grown.max(least).min(aim).clamp(LEAST, self.largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFETCH: usize = 16 << 20;

    /// A client that has received records of `record_bytes` which are `ratio` times smaller on the
    /// wire.
    struct Received {
        limit: FetchLimit,
        totals: Totals,
    }

    impl Received {
        fn new() -> Self {
            let totals = Totals { wire_bytes: 0, content_bytes: 0, records: 0 };
            Self { limit: FetchLimit::new(PREFETCH), totals }
        }

        /// Receives `wire_bytes` between two statistics. Returns the limit after them.
        fn interval(&mut self, wire_bytes: u64, ratio: u64, record_bytes: u64) -> usize {
            self.totals.wire_bytes += wire_bytes;
            self.totals.content_bytes += wire_bytes * ratio;
            self.totals.records += wire_bytes * ratio / record_bytes;
            let Totals { wire_bytes, content_bytes, records } = self.totals;
            let json = format!(
                "{{\"topics\":{{\"t\":{{\"partitions\":{{\"0\":{{\"rxmsgs\":1,\"rxbytes\":2}}}}}}}},\
                 \"rx\":7,\"rx_bytes\":{wire_bytes},\"txmsgs\":0,\"rxmsgs\":{records},\"rxmsg_bytes\":{content_bytes}}}"
            );
            self.limit.observe(json.as_bytes());
            self.limit()
        }

        fn limit(&self) -> usize {
            self.limit.lock().unwrap().limit
        }
    }

    #[test]
    fn the_limit_grows_while_records_weigh_little_and_never_exceeds_the_target() {
        for (ratio, record_bytes) in [(1, 200), (3, 1_000), (30, 1_000), (300, 1 << 20), (7_000, 1 << 20)] {
            let mut received = Received::new();
            for _ in 0..10 {
                let limit = received.interval(50_000_000, ratio, record_bytes) as u64;
                let weight = limit * ratio * (record_bytes + RECORD_OVERHEAD as u64) / record_bytes;
                let allowed = target(PREFETCH) as u64;
                assert!(
                    weight <= allowed + 1_000 || limit == LEAST as u64,
                    "{ratio} {record_bytes}: {limit}"
                );
            }
        }
        let mut received = Received::new();
        let mut grown = |wire_bytes| received.interval(wire_bytes, 1, 4_000);
        assert_eq!(grown(16 * 80_000), 80_000, "a share of what was received");
        assert_eq!(grown(16 * 90_000), 90_000);
        assert_eq!(grown(50_000_000), largest_fetch(PREFETCH));
        assert_eq!(grown(16 * 90_000), largest_fetch(PREFETCH), "fetches continue");
    }

    #[test]
    fn the_limit_shrinks_at_once_when_records_compress_better() {
        let mut received = Received::new();
        while received.interval(50_000_000, 1, 1_000) < largest_fetch(PREFETCH) {}
        let limit = received.interval(1_000_000, 3_000, 1 << 20);
        assert!((300..=1_000).contains(&limit), "{limit}");
    }

    #[test]
    fn a_quiet_client_returns_to_the_start_and_does_not_grow() {
        let mut received = Received::new();
        while received.interval(50_000_000, 1, 1_000) < largest_fetch(PREFETCH) {}
        let limits: Vec<usize> = (0..6).map(|_| received.interval(1_000, 1, 1_000)).collect();
        assert_eq!(limits, [256 << 10, 128 << 10, 64 << 10, 32 << 10, 16 << 10, 8 << 10]);
        assert_eq!([received.interval(1_000, 1, 1_000), received.interval(1_000, 1, 1_000)], [START; 2]);
    }

    #[test]
    fn a_limit_stays_low_without_fetches() {
        let mut received = Received::new();
        let low = received.interval(1_000_000, 7_000, 1 << 20);
        assert_eq!((low, received.interval(0, 1, 1)), (LEAST, LEAST));
    }

    #[test]
    fn unreadable_statistics_change_nothing() {
        let limit = FetchLimit::new(PREFETCH);
        limit.observe(b"{}");
        limit.observe(b"{\"rx_bytes\":");
        limit.observe(&[0xff]);
        assert_eq!(limit.lock().unwrap().limit, START);
        FetchLimit::fixed().observe(b"{}");
    }
}
