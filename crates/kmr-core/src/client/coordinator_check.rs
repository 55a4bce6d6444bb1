//! Whether the coordinator of the group responds at the address that it advertises.
//!
//! A client reads the address from another broker. If it is wrong for this network, a member would
//! wait for its assignment forever.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::time::{sleep, timeout};

use super::context::Client;
use super::leaders::is_unreachable;
use super::open::{OpenOptions, Opened};
use super::timeouts;
use crate::error::Error;

/// The shortest time between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// A topic that no cluster has. The coordinator responds at once, whatever transactions are open.
const NO_TOPIC: &str = "kmr.no-such-topic.5f0c2d6e";

/// Waits until the coordinator responds.
///
/// # Errors
/// [`Error::CoordinatorUnreachable`], if it does not within the timeout of the options.
pub(super) async fn check_coordinator(
    opened: &Opened,
    options: &OpenOptions,
    group: &str,
) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        let Err(error) = opened.client.call("coordinator", request).await? else { return Ok(()) };
        // A rejection is a response. A permission that is missing is an event.
        if !may_respond_later(&error) || !opened.events.is_empty() {
            return Ok(());
        }
        let waited = started.elapsed();
        if waited >= options.timeout {
            let context = opened.client.get().context();
            let report = timeout(timeouts::ADDRESSES, context.statistics.next()).await;
            let report = report.ok().and_then(Result::ok);
            let last = context.last_error();
            return Err(Error::CoordinatorUnreachable {
                group: group.to_owned(),
                servers: options.config.required("bootstrap.servers")?.to_owned(),
                coordinator: report.and_then(|report| report.coordinator.clone()),
                waited,
                source: last.map_or_else(|| error.into(), |(_, reason)| reason.into()),
            });
        }
        sleep(PAUSE).await;
    }
}

/// Requests an offset that the group does not have.
fn request(client: &Client) -> Result<(), KafkaError> {
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition(NO_TOPIC, 0);
    client.committed_offsets(partitions, timeouts::COORDINATOR).map(drop)
}

/// Whether the coordinator is unreachable, is moving or is loading its groups.
fn may_respond_later(error: &KafkaError) -> bool {
    let is_moving = matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorLoadInProgress
        )
    );
    is_moving || is_unreachable(error)
}
