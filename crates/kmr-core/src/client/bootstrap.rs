//! Finds the cluster again.
//!
//! librdkafka from 2.10 on (its issue 5301, open in 2.13) forgets every broker when one that is going down, or has just come up, answers
//! with an empty list of them, and gives up its own return to `bootstrap.servers`: such a client is deaf for ever. It has said before that
//! brokers are down; it need not say so again. So those servers are added again, ever less often, for a while after the last such
//! report. Where they are on its list, that changes nothing; a second entry of one goes with the next metadata.

use std::ffi::CString;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::native::add_brokers;

/// The moment in which the client takes brokers off its list.
const FIRST: Duration = Duration::from_secs(1);
/// Longest time between two additions: each leaves a few bytes in the client for good.
const LONGEST: Duration = Duration::from_secs(30);
/// How long after the last report servers are still added.
const CALM: Duration = Duration::from_secs(300);
/// A report this long after the last one is of another outage.
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
        // The client refuses a value with a zero byte in it.
        Self { servers: CString::new(servers).unwrap_or_default(), outage }
    }

    /// To be called with what the client reports.
    pub fn heard(&self, code: RDKafkaErrorCode) {
        if matches!(code, RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure) {
            self.outage.lock().unwrap_or_else(PoisonError::into_inner).begin(Instant::now());
        }
    }

    /// Adds the servers when that is due; to be called every now and then. Does not block.
    pub fn keep<C: ClientContext>(&self, client: &rdkafka::client::Client<C>) {
        let due = self.outage.lock().unwrap_or_else(PoisonError::into_inner).is_due(Instant::now());
        if due {
            add_brokers(client, &self.servers);
        }
    }
}

impl Outage {
    fn begin(&mut self, now: Instant) {
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
    fn servers_are_added_ever_less_often_until_all_has_been_calm_for_a_while() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut outage = Outage { last: None, wait: FIRST, due: None };
        let added = |outage: &mut Outage, seconds: std::ops::Range<u64>| -> Vec<u64> {
            seconds.filter(|second| outage.is_due(at(*second))).collect()
        };
        assert!(added(&mut outage, 0..10).is_empty(), "nothing is due without a report");
        outage.begin(at(10));
        outage.begin(at(12));
        assert_eq!(added(&mut outage, 12..110), [12, 14, 18, 26, 42, 72, 102]);
        // Another one begins at once; without more reports it is over some time.
        outage.begin(at(110));
        assert_eq!(added(&mut outage, 110..150), [111, 113, 117, 125, 141]);
        let last = added(&mut outage, 150..2_000).pop();
        assert!(last.is_some_and(|last| (410..=440).contains(&last)), "{last:?}");
        outage.begin(at(2_000));
        assert_eq!(added(&mut outage, 2_000..2_002), [2_001]);
    }
}
