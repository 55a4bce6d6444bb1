//! Adds the bootstrap servers again, so that a client that has lost all brokers finds the cluster.
//!
//! A broker that is going down or starting up can respond with an empty list of brokers. librdkafka
//! from 2.10 on (its issue 5301, open in 2.13) then forgets every broker and does not return to
//! `bootstrap.servers`, so the client stays disconnected forever. Before that it reports that
//! brokers are down, and it may not report it again. So kmr adds the servers again, at growing
//! intervals, for a while after the last such report. A server that is still on librdkafka's list
//! is not added, and a second entry of one disappears with the next metadata.

use std::ffi::CString;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::native::brokers::add_brokers;

/// Time from a report to the first addition. Meanwhile the client removes brokers from its list.
const FIRST: Duration = Duration::from_secs(1);
/// Longest time between two additions. Each addition permanently leaves a few bytes in the client.
const LONGEST: Duration = Duration::from_secs(30);
/// How long servers are added after the last report.
const CALM: Duration = Duration::from_secs(300);
/// A report this long after the last one starts another outage.
const ANOTHER: Duration = Duration::from_secs(60);

/// The servers that a client starts from, and when to add them again.
pub struct Bootstrap {
    servers: CString,
    outage: Mutex<Outage>,
}

struct Outage {
    last: Option<Instant>,
    wait: Duration,
    due: Option<Instant>,
}

impl Bootstrap {
    /// `servers`: the value of `bootstrap.servers`.
    pub fn new(servers: &str) -> Self {
        let outage = Mutex::new(Outage { last: None, wait: FIRST, due: None });
        // The client rejects a value with a zero byte.
        Self { servers: CString::new(servers).unwrap_or_default(), outage }
    }

    /// Must be called with each error that the client reports.
    pub fn reported(&self, code: RDKafkaErrorCode) {
        if matches!(code, RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure) {
            self.outage.lock().unwrap_or_else(PoisonError::into_inner).reported(Instant::now());
        }
    }

    /// Adds the servers if that is due. Must be called regularly. Does not block.
    pub fn add_if_due<C: ClientContext>(&self, client: &rdkafka::client::Client<C>) {
        let due = self.outage.lock().unwrap_or_else(PoisonError::into_inner).is_due(Instant::now());
        if due {
            add_brokers(client, &self.servers);
        }
    }
}

impl Outage {
    fn reported(&mut self, now: Instant) {
        if self.last.replace(now).is_none_or(|last| now - last > ANOTHER) {
            self.wait = FIRST;
            self.due = Some(now + FIRST);
        }
        self.due.get_or_insert(now + self.wait);
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.due.take_if(|due| *due <= now).is_some();
        if due {
            self.wait = (self.wait * 2).min(LONGEST);
            self.due = self.last.filter(|last| now - *last < CALM).map(|_| now + self.wait);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_added_at_growing_intervals_until_a_while_after_the_last_report() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut outage = Outage { last: None, wait: FIRST, due: None };
        let added = |outage: &mut Outage, seconds: std::ops::Range<u64>| -> Vec<u64> {
            seconds.filter(|second| outage.is_due(at(*second))).collect()
        };
        assert!(added(&mut outage, 0..10).is_empty(), "nothing is due without a report");
        outage.reported(at(10));
        outage.reported(at(12));
        assert_eq!(added(&mut outage, 12..110), [12, 14, 18, 26, 42, 72, 102]);
        // Another outage starts with the first interval. Without more reports it ends.
        outage.reported(at(110));
        assert_eq!(added(&mut outage, 110..150), [111, 113, 117, 125, 141]);
        let last = added(&mut outage, 150..2_000).pop();
        assert!(last.is_some_and(|last| (410..=440).contains(&last)), "{last:?}");
        outage.reported(at(2_000));
        assert_eq!(added(&mut outage, 2_000..2_002), [2_001]);
    }
}
