//! [`EmbeddedCluster`]: a Kafka cluster inside the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use super::cluster::{ClusterThread, failed};
use super::new_record::NewRecord;
use super::offsets::OffsetReader;
use crate::config::ClientConfig;
use crate::error::Error;

/// Maximum wait for the acknowledgement of records. Everything that the cluster can hold takes a
/// second.
const PRODUCE: Duration = Duration::from_secs(30);

/// A Kafka cluster inside this process: librdkafka's mock cluster, on its own loopback ports. When
/// it is dropped, it ends with all its records. Stop the consumers before that.
///
/// It implements the protocol for producers, consumer groups (eager, cooperative, KIP-848) and
/// offset commits, and is as fast as a real broker. It is for examples, demos and tests of
/// strategies, and has these limits:
///
/// * **A partition keeps 5 MB** (or 100,000 batches), then deletes its oldest records, read or not.
///   Consume while producing, and do not produce further ahead than that. Deleted records that were
///   not read stop the consumer with [`Error::OffsetOutOfRange`].
/// * Groups of the classic protocol wait 3 s before their first assignment. With
///   `group.protocol=consumer` it takes milliseconds, and [`client_config`](Self::client_config)
///   sets that.
/// * The response to a commit during a classic rebalance differs from a real broker's, so records
///   are read twice. Count exactly under `group.protocol=consumer`, or on a real broker.
/// * No admin requests, no TLS, no SASL and no ACLs. Nothing is stored on disk.
///
/// # Examples
/// ```
/// use kmr_core::testing::{EmbeddedCluster, NewRecord};
///
/// # fn main() -> Result<(), kmr_core::Error> {
/// let cluster = EmbeddedCluster::start()?;
/// cluster.create_topic("events", 2)?;
/// cluster.produce("events", [
///     NewRecord::new(0).with_payload("first"),
///     NewRecord::new(0).with_key("k").with_payload("second").with_header("trace", Some(b"1".to_vec())),
///     NewRecord::new(1).with_key("gone"), // no payload: a tombstone
/// ])?;
/// assert_eq!(cluster.end_offsets("events")?, [(0, 2), (1, 1)].into());
///
/// let config = cluster.client_config("my-group"); // for start_consumer or Consumer::builder
/// assert!(cluster.committed("my-group", "events")?.is_empty());
/// # assert_eq!(config.get("group.id"), Some("my-group"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct EmbeddedCluster {
    thread: ClusterThread,
}

impl EmbeddedCluster {
    /// Starts a cluster of one broker.
    ///
    /// # Errors
    /// No thread or port is available.
    pub fn start() -> Result<Self, Error> {
        Ok(Self { thread: ClusterThread::start(1)? })
    }

    /// Host and port of the broker.
    pub fn bootstrap_servers(&self) -> &str {
        &self.thread.servers
    }

    /// Settings for a consumer of this cluster: the address, `group`, and the group protocol that
    /// starts at once.
    pub fn client_config(&self, group: &str) -> ClientConfig {
        ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap_servers())
            .set("group.id", group)
            .set("group.protocol", "consumer")
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// The topic exists, or the number of partitions is not positive.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), Error> {
        let topic = name.to_owned();
        self.thread.call("creating a topic", move |mock| {
            mock.create_topic(&topic, partitions, 1).map_err(|error| {
                failed(&format!("creating topic {topic:?} with {partitions} partitions"), &error)
            })
        })
    }

    /// Produces records in order and waits until all are acknowledged. It blocks the thread for
    /// some milliseconds. From async code, call it through `tokio::task::spawn_blocking` where that
    /// matters.
    ///
    /// # Errors
    /// The topic or a partition does not exist, or a record is too large.
    pub fn produce(&self, topic: &str, records: impl IntoIterator<Item = NewRecord>) -> Result<(), Error> {
        let what = format!("producing to {topic:?}");
        let failure = FirstFailure::default();
        let producer: BaseProducer<FirstFailure> = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap_servers())
            .set("linger.ms", "1")
            .set("message.max.bytes", "16000000")
            .create_with_context(failure.clone())
            .map_err(|error| failed(&what, &error))?;
        for record in records {
            let mut native = record.to_native(topic);
            loop {
                match producer.send(native) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                        native = back;
                        producer.poll(Duration::from_millis(10));
                    }
                    Err((error, _)) => return Err(failed(&what, &error)),
                }
            }
        }
        producer.flush(PRODUCE).map_err(|error| failed(&what, &error))?;
        match failure.take() {
            None => Ok(()),
            Some(error) => Err(failed(&what, &error)),
        }
    }

    /// The committed offsets of `group`, by partition. Partitions without a commit are left out.
    ///
    /// # Errors
    /// The topic does not exist.
    pub fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>, Error> {
        OffsetReader::new(self.bootstrap_servers(), group)?.committed(topic)
    }

    /// The offset after the last record, by partition: how many records were produced to it.
    ///
    /// # Errors
    /// The topic does not exist.
    pub fn end_offsets(&self, topic: &str) -> Result<BTreeMap<i32, i64>, Error> {
        OffsetReader::new(self.bootstrap_servers(), "kmr-offsets")?.ends(topic)
    }
}

/// Keeps the first record that was not delivered.
#[derive(Clone, Default)]
struct FirstFailure(Arc<Mutex<Option<KafkaError>>>);

impl FirstFailure {
    fn take(&self) -> Option<KafkaError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for FirstFailure {}

impl ProducerContext for FirstFailure {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| error.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_topics_and_partitions_are_errors() {
        let cluster = EmbeddedCluster::start().unwrap();
        assert!(matches!(cluster.end_offsets("nowhere"), Err(Error::UnknownTopic { .. })));
        cluster.create_topic("t", 1).unwrap();
        assert!(cluster.create_topic("t", 1).unwrap_err().to_string().contains("creating topic \"t\""));
        let error = cluster.produce("t", [NewRecord::new(7).with_payload("x")]).unwrap_err();
        assert!(error.to_string().contains("producing to \"t\""), "{error}");
    }
}
