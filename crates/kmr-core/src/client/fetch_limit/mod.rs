//! Bounds what librdkafka holds, by adapting `fetch.max.bytes` and `queued.min.messages`.
//!
//! A broker counts compressed bytes, and librdkafka unpacks a whole response at once. So a client
//! starts with limits of a few kilobytes and records. The client's statistics show how much the
//! received bytes weigh in memory, and the polled records show the size of their headers. While
//! records weigh little, the limits grow, because many small fetches cost processor time. A
//! response holds at least one batch, however small the limit, so every client makes progress.
//!
//! `response` has the limit of a response, `prefetch` that of the queue. `statistics` and `sizes`
//! read what they are adapted to.
//!
//! Invariant: a limit that the user set is never changed.

mod prefetch;
mod response;
mod sizes;
mod statistics;

use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;

use self::prefetch::PrefetchLimit;
use self::response::{Received, ResponseLimit};
pub(super) use self::sizes::PolledSizes;
use self::sizes::RecordSizes;
use self::statistics::{Statistics, Totals};
use super::native::limits::{Limit, set_limit};
use crate::config::ClientConfig;
use crate::error::Error;
use crate::member::RECORD_OVERHEAD;
use crate::telemetry;

/// The limits of one client.
#[derive(Debug)]
pub(super) struct FetchLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// `None`: the limit is the user's.
    response: Option<ResponseLimit>,
    /// As above.
    prefetch: Option<PrefetchLimit>,
    sizes: RecordSizes,
    before: Totals,
    /// The limits that the client has.
    applied: [Option<usize>; 2],
}

impl FetchLimit {
    /// The limits of a client that may hold `prefetch_bytes`, except those that the user has set.
    pub(super) fn new(prefetch_bytes: usize, config: &ClientConfig) -> Self {
        let adapts = |limit: Limit| config.get(limit.name()).is_none();
        let response = adapts(Limit::FetchMaxBytes).then(|| ResponseLimit::new(prefetch_bytes));
        let prefetch = adapts(Limit::QueuedMinMessages).then(|| PrefetchLimit::new(prefetch_bytes));
        Self(Mutex::new(State { response, prefetch, ..State::default() }))
    }

    /// All limits are the user's.
    #[cfg(test)]
    pub(super) fn fixed() -> Self {
        Self(Mutex::default())
    }

    /// Must be called with each report of statistics.
    pub(super) fn observe(&self, statistics: &[u8]) {
        if let Some(statistics) = Statistics::of(statistics) {
            self.lock().observe(&statistics);
        }
    }

    /// Must be called with all records that a poll returns.
    pub(super) fn polled(&self, sizes: &PolledSizes) {
        self.lock().polled(sizes);
    }

    /// Must be called before partitions are assigned.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply).
    pub(super) fn assigning<C: ClientContext>(
        &self,
        client: &rdkafka::client::Client<C>,
    ) -> Result<(), Error> {
        if let Some(response) = &mut self.lock().response {
            response.restart();
        }
        self.apply(client)
    }

    /// Gives the client its limits, if they have changed. Must be called regularly. Does not block.
    ///
    /// # Errors
    /// librdkafka rejects the change.
    pub(super) fn apply<C: ClientContext>(&self, client: &rdkafka::client::Client<C>) -> Result<(), Error> {
        let mut state = self.lock();
        let limits = state.limits();
        if limits == state.applied {
            return Ok(());
        }
        let [response, prefetch] = limits;
        telemetry::fetch_limit(response, prefetch);
        for (limit, value) in [(Limit::FetchMaxBytes, response), (Limit::QueuedMinMessages, prefetch)] {
            let set = value.map_or(Ok(()), |value| set_limit(client, limit, value));
            set.map_err(|reason| Error::Config(format!("Kafka setting {}: {reason}", limit.name())))?;
        }
        state.applied = limits;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn polled(&mut self, sizes: &PolledSizes) {
        self.sizes.polled(sizes);
        if let Some(prefetch) = &mut self.prefetch {
            let (records, largest) = self.sizes.since_statistics();
            prefetch.polled(records, RECORD_OVERHEAD as u64 + largest);
        }
    }

    fn observe(&mut self, statistics: &Statistics) {
        let totals = statistics.totals;
        let received = totals.since(&std::mem::replace(&mut self.before, totals));
        self.sizes.update();
        let per_record = RECORD_OVERHEAD as u64 + self.sizes.headers;
        if let Some(prefetch) = &mut self.prefetch {
            prefetch.observe(&received, per_record);
        }
        if let Some(response) = &mut self.response {
            let heaviest = RECORD_OVERHEAD as u64 + self.sizes.heaviest_headers;
            response.observe(&Received {
                wire_bytes: received.wire_bytes,
                weight: received.weight(per_record),
                share: statistics.shares.iter().map(|share| share.weight(heaviest)).max().unwrap_or(0),
                largest_record: self.sizes.largest,
                has_unread: statistics.has_unread,
            });
        }
    }

    fn limits(&self) -> [Option<usize>; 2] {
        [self.response.as_ref().map(ResponseLimit::limit), self.prefetch.as_ref().map(PrefetchLimit::limit)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFETCH: usize = 16 << 20;

    fn limit(config: &ClientConfig) -> FetchLimit {
        FetchLimit::new(PREFETCH, config)
    }

    /// Statistics of a client that has received `records` records of `bytes` bytes each, as large
    /// on the wire, in responses of `share` records.
    fn statistics(records: u64, bytes: u64, wire_bytes: u64, share: u64) -> String {
        let (size, content_bytes) = (share * bytes, records * bytes);
        format!(
            "{{\"topics\":{{\"t\":{{\"batchsize\": {{ \"min\":1, \"max\":{size}, \"avg\":1}}, \
             \"batchcnt\": {{ \"min\":1, \"max\":{share}, \"avg\":1}}, \
             \"partitions\":{{\"0\":{{\"rxmsgs\":1,\"rxbytes\":2}}}}}}}},\
             \"rx\":7,\"rx_bytes\":{wire_bytes},\"txmsgs\":0,\"rxmsgs\":{records},\"rxmsg_bytes\":{content_bytes}}}"
        )
    }

    #[test]
    fn limits_of_the_user_are_not_adapted() {
        let limits = limit(&ClientConfig::new().set("fetch.max.bytes", "5000000")).lock().limits();
        assert!(limits[0].is_none() && limits[1].is_some());
        let limits = limit(&ClientConfig::new().set("queued.min.messages", "10")).lock().limits();
        assert!(limits[0].is_some() && limits[1].is_none());
        FetchLimit::fixed().observe(statistics(1, 1, 1, 1).as_bytes());
    }

    #[test]
    fn unreadable_statistics_change_nothing() {
        let limit = limit(&ClientConfig::new());
        let before = limit.lock().limits();
        limit.observe(b"{}");
        assert_eq!(limit.lock().limits(), before);
    }

    /// Records of 100 B that are 300 times smaller on the wire, with and without headers of 4 KB.
    #[test]
    fn polled_headers_count_for_both_limits() {
        let limits = |header_bytes: u64| {
            let limit = limit(&ClientConfig::new());
            for n in 1..6 {
                limit.polled(&PolledSizes { records: 1000, header_bytes: 1000 * header_bytes, largest: 100 });
                let (records, per_record) = (200_000 * n, 440 + header_bytes);
                limit.observe(statistics(records, 100, records * per_record / 300, 100).as_bytes());
            }
            let state = limit.lock();
            state.limits().map(|limit| limit.unwrap() as u64)
        };
        let [response, prefetch] = limits(4_000);
        assert!(response * 300 <= 1 << 20 && prefetch * 4_440 <= PREFETCH as u64, "{response} {prefetch}");
        let [response, prefetch] = limits(0);
        assert!(response * 300 <= 1 << 20 && response * 300 > 1 << 19, "{response}");
        assert_eq!(prefetch, crate::config::most_records(PREFETCH) as u64);
    }
}
