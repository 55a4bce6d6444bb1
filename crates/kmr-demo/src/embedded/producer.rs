//! The demo's producer: stays close to the committed offsets, because the cluster keeps little.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use kmr_cli_support::errors::one_line;
use kmr_core::ConsumerHandle;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};

use crate::payload;

/// Maximum bytes of a partition after its committed offset. The cluster keeps 5 MB.
const LEAD_BYTES: u64 = 2_000_000;
/// Size of a message's JSON.
const PAYLOAD_BYTES: usize = 100;
/// Kafka's overhead: the frame of a record, and at worst a batch header for each.
const FRAME_BYTES: u64 = 20 + 61;
/// Maximum records of a partition after its committed offset.
const LEAD: u64 = LEAD_BYTES / (PAYLOAD_BYTES as u64 + FRAME_BYTES);
/// Maximum records of one partition before the next partition.
const ROUND: u64 = 500;
/// Pause while no partition may get more.
const PAUSE: Duration = Duration::from_millis(1);
/// Timeout for the last delivery reports.
const FLUSH: Duration = Duration::from_secs(10);

const _: () = assert!(LEAD > ROUND, "a round has to fit into the lead");

/// The messages to produce: their number for each partition, and the malformed ones.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    messages: u64,
    partitions: i32,
    malformed_ratio: f64,
}

impl Plan {
    pub(crate) fn new(messages: u64, partitions: i32, malformed_ratio: f64) -> Self {
        Self { messages, partitions, malformed_ratio }
    }

    pub(crate) fn partitions(&self) -> std::ops::Range<i32> {
        0..self.partitions
    }

    /// Number of messages for `partition`. The first partitions get one more after an uneven split.
    fn quota(&self, partition: i32) -> u64 {
        let partitions = u64::from(self.partitions.unsigned_abs());
        let extra = u64::from(partition.unsigned_abs()) < self.messages % partitions;
        self.messages / partitions + u64::from(extra)
    }

    /// Whether message `id` of `partition` is malformed.
    pub(crate) fn is_malformed(&self, partition: i32, id: u64) -> bool {
        payload::is_malformed(partition, id, self.malformed_ratio)
    }
}

/// The throttle: number of records that may be produced to a partition now.
fn allowance(next: u64, committed: u64, quota: u64) -> u64 {
    (committed + LEAD).min(quota).saturating_sub(next).min(ROUND)
}

/// The running producer.
#[derive(Debug)]
pub(crate) struct MessageProducer {
    reports: DeliveryReports,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// The result of producing.
#[derive(Debug)]
pub(crate) struct Produced {
    /// Number of acknowledged messages, by partition.
    pub(crate) acknowledged: BTreeMap<i32, u64>,
    pub(crate) failure: Option<String>,
}

impl MessageProducer {
    /// Starts to produce on its own thread.
    pub(crate) fn start(
        plan: Plan,
        servers: &str,
        topic: &'static str,
        handle: ConsumerHandle,
    ) -> anyhow::Result<Self> {
        let reports = DeliveryReports::new(&plan);
        let producer: ThreadedProducer<DeliveryReports> = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("linger.ms", "2")
            .set("queue.buffering.max.messages", "1000000")
            .create_with_context(reports.clone())
            .context("creating the producer")?;
        let stop = Arc::<AtomicBool>::default();
        let mut sender = Sender { producer, plan, topic, handle, stop: stop.clone(), payload: Vec::new() };
        let thread = std::thread::Builder::new().name("producer".to_owned()).spawn(move || sender.run())?;
        Ok(Self { reports, stop, thread: Some(thread) })
    }

    /// Stops producing. Messages that were sent still arrive.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether producing has ended, stopped or complete.
    pub(crate) fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Number of messages acknowledged so far.
    pub(crate) fn produced(&self) -> u64 {
        self.reports.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Stops producing and waits for the thread.
    pub(crate) fn finish(mut self) -> Produced {
        self.stop();
        let result = self.thread.take().map(JoinHandle::join);
        let failure = match result {
            Some(Ok(Err(error))) => Some(one_line(&error)),
            Some(Err(_)) => Some("the producer's thread panicked".to_owned()),
            Some(Ok(Ok(()))) | None => None,
        };
        let counts = self.reports.acknowledged.iter().map(|count| count.load(Ordering::Relaxed));
        Produced {
            acknowledged: (0..).zip(counts).collect(),
            failure: failure.or_else(|| self.reports.failure()),
        }
    }
}

/// The state of the thread.
struct Sender {
    producer: ThreadedProducer<DeliveryReports>,
    plan: Plan,
    topic: &'static str,
    handle: ConsumerHandle,
    stop: Arc<AtomicBool>,
    payload: Vec<u8>,
}

impl Sender {
    fn run(&mut self) -> anyhow::Result<()> {
        let mut next: Vec<u64> = self.plan.partitions().map(|_| 0).collect();
        while !self.stop.load(Ordering::Relaxed) {
            let committed = self.committed(next.len());
            let mut sent = 0;
            for ((partition, next), committed) in self.plan.partitions().zip(&mut next).zip(committed) {
                let round = allowance(*next, committed, self.plan.quota(partition));
                for id in *next..*next + round {
                    self.send(partition, id)?;
                }
                *next += round;
                sent += round;
            }
            if self.plan.partitions().zip(&next).all(|(partition, next)| *next == self.plan.quota(partition))
            {
                break;
            }
            if sent == 0 {
                std::thread::sleep(PAUSE);
            }
        }
        self.producer.flush(FLUSH).context("waiting for delivery reports")
    }

    /// Committed offsets by partition. The topic is new, so an offset is a number of records.
    fn committed(&self, partitions: usize) -> Vec<u64> {
        let mut committed = vec![0; partitions];
        for (partition, offset) in self.handle.stats().committed {
            let at = usize::try_from(partition.partition()).unwrap_or(usize::MAX);
            if let Some(slot) = committed.get_mut(at) {
                *slot = offset.unsigned_abs();
            }
        }
        committed
    }

    fn send(&mut self, partition: i32, id: u64) -> anyhow::Result<()> {
        payload::write(&mut self.payload, id, self.plan.is_malformed(partition, id), PAYLOAD_BYTES);
        // An id fits on 64-bit platforms.
        let mut record = BaseRecord::<(), [u8], usize>::with_opaque_to(self.topic, id as usize)
            .partition(partition)
            .payload(&self.payload);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                    record = unsent;
                    std::thread::sleep(PAUSE);
                }
                Err((error, _)) => return Err(error).context("sending a message"),
            }
        }
    }
}

/// Numbers of acknowledged messages by partition, and the first failure.
#[derive(Clone, Debug)]
struct DeliveryReports {
    acknowledged: Arc<[AtomicU64]>,
    failure: Arc<Mutex<Option<String>>>,
}

impl DeliveryReports {
    fn new(plan: &Plan) -> Self {
        Self { acknowledged: plan.partitions().map(|_| AtomicU64::new(0)).collect(), failure: Arc::default() }
    }

    fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fail(&self, reason: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }
}

impl ClientContext for DeliveryReports {}

impl ProducerContext for DeliveryReports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, id: usize) {
        match result {
            Ok(message) => {
                // The account depends on it: message `id` has offset `id`.
                if usize::try_from(message.offset()) != Ok(id) {
                    self.fail(format!("message {id} got offset {}", message.offset()));
                }
                let at = usize::try_from(message.partition()).unwrap_or(usize::MAX);
                if let Some(count) = self.acknowledged.get(at) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err((error, _)) => self.fail(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_add_up() {
        for (messages, partitions) in [(1_000_000, 8), (10, 3), (2, 5)] {
            let plan = Plan::new(messages, partitions, 0.0);
            assert_eq!(plan.partitions().map(|partition| plan.quota(partition)).sum::<u64>(), messages);
        }
    }

    #[test]
    fn lead_never_exceeds_the_clusters_capacity() {
        assert!(LEAD * (PAYLOAD_BYTES as u64 + FRAME_BYTES) <= LEAD_BYTES);
        assert_eq!(allowance(0, 0, u64::MAX), ROUND);
        assert_eq!(allowance(LEAD, 0, u64::MAX), 0, "nothing is committed yet");
        assert_eq!(allowance(LEAD, 10, u64::MAX), 10, "as many as were committed since");
        assert_eq!(allowance(95, 90, 100), 5, "no more than planned");
        assert_eq!(allowance(100, 100, 100), 0);
        assert_eq!(allowance(5, 2_000_000, 5), 0, "a commit beyond the plan changes nothing");
    }
}
