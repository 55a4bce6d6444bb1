//! Brokers with faults and permissions: proxies, listeners that lead nowhere, SASL and ACLs.

mod listeners;
mod proxy;
mod secured;

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

pub use self::listeners::{with_false_listener, with_listeners};
pub use self::proxy::{HeldCommit, KafkaProxy, slow_responses};
pub use self::secured::{SecuredKafka, User};

/// Whether a broker answers a metadata request. Each call uses a new client, because an old one
/// backs off.
fn answers(config: &ClientConfig) -> bool {
    let consumer: Result<BaseConsumer, _> = config.create();
    consumer.is_ok_and(|consumer| {
        let metadata = consumer.client().fetch_metadata(None, Duration::from_secs(2));
        metadata.is_ok_and(|metadata| !metadata.brokers().is_empty())
    })
}
