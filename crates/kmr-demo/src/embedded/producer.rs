//! The demo's producer: never further ahead of the committed offsets than the embedded cluster can keep.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use kmr_core::ConsumerHandle;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};

use crate::payload;

/// Bytes of a partition that may be ahead of its committed offset. The cluster keeps 5 MB.
const AHEAD_BYTES: u64 = 2_000_000;
/// JSON of a message.
const PAYLOAD_BYTES: usize = 100;
/// What Kafka adds: the frame of a record, and at worst a batch header for each.
const FRAME_BYTES: u64 = 20 + 61;
/// Records that may be ahead.
const AHEAD: u64 = AHEAD_BYTES / (PAYLOAD_BYTES as u64 + FRAME_BYTES);
/// Records of one partition before the next one has its turn.
const TURN: u64 = 500;
/// Wait when no partition may be produced to.
const PAUSE: Duration = Duration::from_millis(1);
/// Longest wait for the acknowledgements at the end.
const FLUSH: Duration = Duration::from_secs(10);

const _: () = assert!(AHEAD > TURN, "a turn has to fit into what may be ahead");

/// How many messages go to which partition, and which of them are malformed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    messages: u64,
    partitions: i32,
    malformed_share: f64,
}

impl Plan {
    pub(crate) fn new(messages: u64, partitions: i32, malformed_share: f64) -> Self {
        Self { messages, partitions, malformed_share }
    }

    pub(crate) fn partitions(&self) -> std::ops::Range<i32> {
        0..self.partitions
    }

    /// Messages for `partition`: all get the same number, the first ones one more if it does not come out even.
    fn quota(&self, partition: i32) -> u64 {
        let partitions = u64::from(self.partitions.unsigned_abs());
        let extra = u64::from(partition.unsigned_abs()) < self.messages % partitions;
        self.messages / partitions + u64::from(extra)
    }

    /// Whether message `id` of `partition` is malformed.
    pub(crate) fn is_malformed(&self, partition: i32, id: u64) -> bool {
        payload::is_malformed(partition, id, self.malformed_share)
    }
}

/// How many more records of a partition may be produced now: the throttle.
fn allowance(next: u64, committed: u64, quota: u64) -> u64 {
    (committed + AHEAD).min(quota).saturating_sub(next).min(TURN)
}

/// The running producer.
#[derive(Debug)]
pub(crate) struct Feed {
    receipts: Receipts,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// What the producer did.
#[derive(Debug)]
pub(crate) struct Fed {
    /// Acknowledged messages, by partition.
    pub(crate) produced: BTreeMap<i32, u64>,
    pub(crate) failure: Option<String>,
}

impl Feed {
    /// Starts to produce, on a thread of its own.
    pub(crate) fn start(
        plan: Plan,
        servers: &str,
        topic: &'static str,
        handle: ConsumerHandle,
    ) -> anyhow::Result<Self> {
        let receipts = Receipts::new(&plan);
        let producer: ThreadedProducer<Receipts> = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("linger.ms", "2")
            .set("queue.buffering.max.messages", "1000000")
            .create_with_context(receipts.clone())
            .context("making a producer")?;
        let stop = Arc::<AtomicBool>::default();
        let mut sender = Sender { producer, plan, topic, handle, stop: stop.clone(), payload: Vec::new() };
        let thread = std::thread::Builder::new().name("producer".to_owned()).spawn(move || sender.run())?;
        Ok(Self { receipts, stop, thread: Some(thread) })
    }

    /// Ends producing; what is on its way still arrives.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether producing has ended, by itself or not.
    pub(crate) fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Messages acknowledged so far.
    pub(crate) fn produced(&self) -> u64 {
        self.receipts.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Waits for the end of the thread.
    pub(crate) fn finish(mut self) -> Fed {
        self.stop();
        let result = self.thread.take().map(JoinHandle::join);
        let failure = match result {
            Some(Ok(Err(error))) => Some(crate::errors::one_line(&error)),
            Some(Err(_)) => Some("the producer's thread panicked".to_owned()),
            Some(Ok(Ok(()))) | None => None,
        };
        let counts = self.receipts.acknowledged.iter().map(|count| count.load(Ordering::Relaxed));
        Fed { produced: (0..).zip(counts).collect(), failure: failure.or_else(|| self.receipts.failure()) }
    }
}

/// What the thread works with.
struct Sender {
    producer: ThreadedProducer<Receipts>,
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
                let turn = allowance(*next, committed, self.plan.quota(partition));
                for id in *next..*next + turn {
                    self.send(partition, id)?;
                }
                *next += turn;
                sent += turn;
            }
            if self.plan.partitions().zip(&next).all(|(partition, next)| *next == self.plan.quota(partition))
            {
                break;
            }
            if sent == 0 {
                std::thread::sleep(PAUSE);
            }
        }
        self.producer.flush(FLUSH).context("waiting for acknowledgements")
    }

    /// Committed offsets by partition. The topic is new, so that an offset is a number of records.
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
        // 64-bit platforms: an id fits.
        let mut record = BaseRecord::<(), [u8], usize>::with_opaque_to(self.topic, id as usize)
            .partition(partition)
            .payload(&self.payload);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(PAUSE);
                }
                Err((error, _)) => return Err(error).context("sending a message"),
            }
        }
    }
}

/// Acknowledgements, by partition, and the first thing that went wrong.
#[derive(Clone, Debug)]
struct Receipts {
    acknowledged: Arc<[AtomicU64]>,
    failure: Arc<Mutex<Option<String>>>,
}

impl Receipts {
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

impl ClientContext for Receipts {}

impl ProducerContext for Receipts {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, id: usize) {
        match result {
            Ok(message) => {
                // The account below depends on it: message `id` is at offset `id`.
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
    fn never_further_ahead_than_the_cluster_keeps() {
        assert!(AHEAD * (PAYLOAD_BYTES as u64 + FRAME_BYTES) <= AHEAD_BYTES);
        assert_eq!(allowance(0, 0, u64::MAX), TURN);
        assert_eq!(allowance(AHEAD, 0, u64::MAX), 0, "nothing is committed yet");
        assert_eq!(allowance(AHEAD, 10, u64::MAX), 10, "as much as was committed since");
        assert_eq!(allowance(95, 90, 100), 5, "no more than planned");
        assert_eq!(allowance(100, 100, 100), 0);
        assert_eq!(allowance(5, 2_000_000, 5), 0, "a commit beyond the plan changes nothing");
    }
}
