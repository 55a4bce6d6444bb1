//! Finds the cluster again.
//!
//! librdkafka from 2.10 on (its issue 5301, open in 2.13) forgets every broker when one that is going down answers with an empty list of
//! them, and gives up its own return to `bootstrap.servers`: such a client is deaf for ever, and has said no more than "all brokers
//! are down". Adding those servers again, a moment after it said so, ends that; where they are on its list, it changes nothing.

use std::ffi::CString;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;

use super::native::add_brokers;

/// The moment in which the client takes brokers off its list.
const FIRST: Duration = Duration::from_secs(1);
/// Longest time between two additions in an outage that lasts: each leaves a few bytes in the client for good.
const LONGEST: Duration = Duration::from_secs(30);
/// An outage this long after the last one is another one.
const CALM: Duration = Duration::from_secs(300);

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

    /// To be called when the client says that all brokers are down.
    pub fn all_are_down(&self) {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner).begin(Instant::now());
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
        if self.last.replace(now).is_some_and(|last| now - last > CALM) {
            self.wait = FIRST;
        }
        self.due.get_or_insert(now + self.wait);
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.due.take_if(|due| *due <= now).is_some();
        if due {
            self.wait = (self.wait * 2).min(LONGEST);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn servers_are_added_a_moment_later_and_ever_less_often_while_an_outage_lasts() {
        let (start, mut outage) = (Instant::now(), Outage { last: None, wait: FIRST, due: None });
        let mut added = Vec::new();
        for tick in 0..1_000 {
            let now = start + seconds(1) * tick / 10;
            if tick % 5 == 0 {
                outage.begin(now);
            }
            if outage.is_due(now) {
                added.push((now - start).as_secs());
            }
        }
        assert_eq!(added, [1, 3, 8, 16, 33, 63, 94]);
        assert!(outage.is_due(start + seconds(130)), "the last report is seen to");
        assert!(!outage.is_due(start + seconds(500)), "nothing is due without another one");
        let later = start + seconds(100) + CALM + seconds(1);
        outage.begin(later);
        assert!(!outage.is_due(later), "it begins anew, a moment later");
        assert!(outage.is_due(later + FIRST) && !outage.is_due(later + seconds(100)));
    }
}
