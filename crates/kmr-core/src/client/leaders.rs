//! Whether the leaders of a topic's partitions can be reached at the addresses that they advertise.
//!
//! A client reads the addresses of all brokers from the first one that answers. If they are wrong
//! for this network (`advertised.listeners`), a consumer would wait for its first record forever.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};

use super::context::Client;
use super::timeouts;
use crate::error::Error;

/// Addresses that an error names.
const SHOWN: usize = 5;
/// The shortest time for one leader, of many.
const LEAST: Duration = Duration::from_millis(250);

/// The shortest time between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// A broker that leads partitions of a topic.
pub(super) struct Leader {
    id: i32,
    /// One of its partitions.
    topic: String,
    partition: i32,
    address: String,
}

/// The leaders of the topics' partitions, each once. Partitions without a leader are left out.
pub(super) fn leaders<'a>(
    metadata: &Metadata,
    topics: impl IntoIterator<Item = &'a MetadataTopic>,
) -> Vec<Leader> {
    let mut leaders: Vec<Leader> = Vec::new();
    let partitions = topics.into_iter().flat_map(|topic| topic.partitions().iter().map(move |p| (topic, p)));
    for (topic, partition) in partitions {
        let id = partition.leader();
        let broker = metadata.brokers().iter().find(|broker| broker.id() == id);
        if let Some(broker) = broker.filter(|_| leaders.iter().all(|leader| leader.id != id)) {
            let address = format!("{}:{}", broker.host(), broker.port());
            let topic = topic.name().to_owned();
            leaders.push(Leader { id, topic, partition: partition.id(), address });
        }
    }
    leaders
}

/// A topic's leaders are requested at the start of a client.
pub(super) struct Reachability<'a> {
    pub(super) client: &'a Client,
    /// A topic, or a pattern.
    pub(super) topic: &'a str,
    pub(super) servers: &'a str,
    pub(super) started: Instant,
    pub(super) timeout: Duration,
}

impl Reachability<'_> {
    /// Waits until one leader answers. One is enough: the others may be restarting.
    ///
    /// # Errors
    /// [`Error::LeadersUnreachable`], if none does within the timeout.
    pub(super) fn check(&self, leaders: &[Leader]) -> Result<(), Error> {
        let share = self.timeout / u32::try_from(leaders.len().max(1)).unwrap_or(u32::MAX);
        let limit = timeouts::METADATA.min(share).max(LEAST);
        loop {
            let mut last = None;
            for leader in leaders {
                let requested = Instant::now();
                match self.client.fetch_watermarks(&leader.topic, leader.partition, limit) {
                    // librdkafka reports a leader without a connection as LEADER_NOT_AVAILABLE, at
                    // the end of the time.
                    Err(error) if is_unreachable(&error) || requested.elapsed() >= limit => {
                        last = Some(error);
                    }
                    // A rejection is an answer, too.
                    Ok(_) | Err(_) => return Ok(()),
                }
                pause(requested);
            }
            let Some(error) = last else { return Ok(()) };
            let waited = self.started.elapsed();
            if waited >= self.timeout || self.client.context().is_abandoned() {
                return Err(self.unreachable(leaders, waited, error));
            }
        }
    }

    fn unreachable(&self, leaders: &[Leader], waited: Duration, error: KafkaError) -> Error {
        let addresses: Vec<&str> = leaders.iter().map(|leader| leader.address.as_str()).collect();
        let last = self.client.context().last_error();
        Error::LeadersUnreachable {
            topic: self.topic.to_owned(),
            servers: self.servers.to_owned(),
            leaders: shown(&addresses),
            waited,
            source: last.map_or_else(|| error.into(), |(_, reason)| reason.into()),
        }
    }
}

/// The first addresses of a list, for an error.
pub(super) fn shown(addresses: &[&str]) -> String {
    let mut shown = addresses[..addresses.len().min(SHOWN)].join(", ");
    if addresses.len() > SHOWN {
        shown.push_str(", …");
    }
    shown
}

/// Errors of the client itself are negative: a timeout, a connection, a name. Those of a broker are
/// not.
pub(super) fn is_unreachable(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| {
        let is_unknown = matches!(code, RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownPartition);
        (code as i32) < 0 && !is_unknown
    })
}

/// Some errors return at once, so the next attempt waits.
pub(super) fn pause(requested: Instant) {
    std::thread::sleep(PAUSE.saturating_sub(requested.elapsed()));
}
