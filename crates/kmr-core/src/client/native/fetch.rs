//! The reading end of the fetch queue.

use std::collections::HashMap;
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka::bindings as rd;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;

use super::batch::MessageBatch;
use super::header_bytes::{self, HeaderMeter};
use super::queue::Queue;
use super::raw::{code, known, text};
use crate::client::fetch_limit::PolledSizes;
use crate::client::handle::ClientRef;
use crate::client::positions::{Gate, OutOfRange, Positions, Restart};
use crate::member::{FetchQueue, Fetched, PartitionFailure, RECORD_OVERHEAD, RecordBatch};
use crate::record::TopicPartition;
use crate::util::future::BoxFuture;

/// `RD_KAFKA_OFFSET_BEGINNING`: the offset of errors about the lowest offset.
const LOWEST: i64 = -2;

/// librdkafka reports a batch that is too large like one that is damaged.
const UNPACKED_TOO_LARGE: &str =
    "; if the batch is intact, it unpacks to more than receive.message.max.bytes: raise this setting";

/// The reading end of the fetch queue.
pub(in crate::client) struct NativeFetch {
    queue: Arc<Queue>,
    messages: Vec<*mut rd::rd_kafka_message_t>,
    topics: TopicNames,
    gate: Arc<Gate>,
    /// Restarts the partitions that need it. Does not wait.
    restart: Box<dyn Fn(Restart) + Send>,
}

// SAFETY: `messages` is empty between calls; the rest is `Send`.
unsafe impl Send for NativeFetch {}

impl NativeFetch {
    pub(in crate::client) fn new(
        queue: Arc<Queue>,
        gate: Arc<Gate>,
        restart: impl Fn(Restart) + Send + 'static,
    ) -> Self {
        let (topics, restart) = (TopicNames::default(), Box::new(restart));
        Self { queue, messages: Vec::new(), topics, gate, restart }
    }

    fn topic(&mut self, topic: *mut rd::rd_kafka_topic_t) -> Arc<str> {
        // SAFETY: a message keeps its topic object alive, and with it its name, which is a C string
        // and never null.
        let name = unsafe { CStr::from_ptr(rd::rd_kafka_topic_name(topic)) };
        self.topics.name(topic as usize, name)
    }

    /// Splits the polled messages into runs of one partition, and advances the positions.
    fn split(&mut self, positions: &mut Positions) -> Vec<Fetched> {
        let mut fetched = Vec::new();
        let mut run: Option<Run> = None;
        // Most polls return one run, so its list need not grow.
        let mut left = self.messages.len();
        for pointer in std::mem::take(&mut self.messages) {
            let Some(pointer) = NonNull::new(pointer) else { continue };
            // SAFETY: a message that librdkafka has just returned.
            let message = unsafe { pointer.as_ref() };
            let failed = code(&raw const message.err) != 0;
            if failed || run.as_ref().is_none_or(|run| !run.continues_with(message)) {
                fetched.extend(run.take().and_then(|run| self.finish(run, positions)));
                let topic = if message.rkt.is_null() { "".into() } else { self.topic(message.rkt) };
                run = Some(Run::new(topic, message, left, self.queue.client.clone()));
            }
            left -= 1;
            if let Some(current) = &mut run {
                // SAFETY: a message that librdkafka has just returned. From here on the run owns it
                // and destroys it, also if it is an error.
                unsafe { current.push(pointer) };
                if failed {
                    fetched.extend(run.take().and_then(|run| run.failure(message, positions)));
                }
            }
        }
        fetched.extend(run.and_then(|run| self.finish(run, positions)));
        fetched
    }

    fn finish(&self, mut run: Run, positions: &mut Positions) -> Option<Fetched> {
        run.measure_last();
        self.queue.client.get().context().fetch_limit.polled(&run.sizes);
        run.finish(positions)
    }
}

impl FetchQueue for NativeFetch {
    fn poll(&mut self, max_records: usize) -> Option<Vec<Fetched>> {
        // While a call moves positions, nothing is polled. That call wakes this queue at its end.
        let gate = self.gate.clone();
        let mut positions = gate.try_lock()?;
        self.messages.clear();
        self.messages.reserve(max_records);
        // SAFETY: `max_records` slots are writable, the call initialises the first `count` of them.
        // Timeout 0: with a longer one it would wait until all are full.
        let count = unsafe {
            let slots = self.messages.as_mut_ptr();
            rd::rd_kafka_consume_batch_queue(self.queue.handle.as_ptr(), 0, slots, max_records)
        };
        // SAFETY: see above.
        unsafe { self.messages.set_len(usize::try_from(count).unwrap_or(0)) };
        if self.messages.is_empty() {
            return None;
        }
        let fetched = self.split(&mut positions);
        if let Some(when) = positions.take_restart() {
            (self.restart)(when);
        }
        Some(fetched)
    }

    fn readable(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.queue.readable())
    }
}

/// Topic names by the address of librdkafka's topic object, so that a run of messages needs no copy
/// of its own. An object lives only as long as it is referenced, and another topic may then get its
/// address.
#[derive(Default)]
struct TopicNames(HashMap<usize, Arc<str>>);

impl TopicNames {
    /// The name of the object at `address`, which is now `current`.
    fn name(&mut self, address: usize, current: &CStr) -> Arc<str> {
        match self.0.get(&address) {
            Some(known) if known.as_bytes() == current.to_bytes() => known.clone(),
            _ => {
                let name: Arc<str> = current.to_string_lossy().into();
                self.0.insert(address, name.clone());
                name
            }
        }
    }
}

/// Consecutive messages of one partition.
struct Run {
    topic_object: *mut rd::rd_kafka_topic_t,
    partition: i32,
    /// Bytes to charge to the memory budget, without the last message.
    bytes: usize,
    sizes: PolledSizes,
    meter: HeaderMeter,
    /// The message that was pushed last.
    last: Option<NonNull<rd::rd_kafka_message_t>>,
    batch: MessageBatch,
}

impl Run {
    /// A run of at most `capacity` messages that starts with `message`.
    fn new(topic: Arc<str>, message: &rd::rd_kafka_message_t, capacity: usize, client: ClientRef) -> Self {
        let batch = MessageBatch::new(topic, capacity, client);
        let (topic_object, partition) = (message.rkt, message.partition);
        let (sizes, meter) = (PolledSizes::default(), HeaderMeter::default());
        Self { topic_object, partition, bytes: 0, sizes, meter, last: None, batch }
    }

    /// Takes ownership of a message.
    ///
    /// # Safety
    /// As for [`MessageBatch::push`].
    #[inline]
    unsafe fn push(&mut self, message: NonNull<rd::rd_kafka_message_t>) {
        if let Some(last) = self.last.replace(message) {
            // SAFETY: the batch owns the message before, and the caller has just received this one.
            let (last, next) = unsafe { (last.as_ref(), message.as_ref()) };
            // SAFETY: as above. The batch is still here, so no other thread uses its messages.
            let header_bytes = unsafe { self.meter.between(last, next) };
            self.charge(last, header_bytes);
        }
        // SAFETY: the caller's promise.
        unsafe { self.batch.push(message) };
    }

    /// Charges the last message, which no other one follows.
    fn measure_last(&mut self) {
        if let Some(last) = self.last.take() {
            // SAFETY: the batch owns the message, and is still here.
            let (last, header_bytes) = unsafe { (last.as_ref(), header_bytes::parsed(last.as_ref())) };
            self.charge(last, header_bytes);
        }
    }

    #[inline]
    fn charge(&mut self, message: &rd::rd_kafka_message_t, header_bytes: usize) {
        let content = message.len + message.key_len + header_bytes;
        self.bytes += content + RECORD_OVERHEAD;
        self.sizes.records += 1;
        self.sizes.header_bytes += header_bytes as u64;
        self.sizes.largest = self.sizes.largest.max(content as u64);
    }

    fn continues_with(&self, message: &rd::rd_kafka_message_t) -> bool {
        self.topic_object == message.rkt && self.partition == message.partition
    }

    /// `None`: the partition is not assigned. If a rebalance has replaced the one before,
    /// librdkafka ends an assignment later than kmr does.
    fn finish(self, positions: &mut Positions) -> Option<Fetched> {
        let Run { partition, bytes, mut batch, .. } = self;
        // The budget is charged for messages and not for capacity, and short runs can be many.
        batch.shrink_to_fit();
        let last = batch.len().checked_sub(1).map(|last| batch.offset(last))?;
        let topic = batch.topic().clone();
        let is_assigned = positions.returned(&TopicPartition::new(topic.clone(), partition), last);
        is_assigned.then(|| Fetched::Records { topic, partition, bytes, batch: Box::new(batch) })
    }

    /// What librdkafka returned instead of a message. `None`: it does not concern the current
    /// assignment.
    fn failure(&self, message: &rd::rd_kafka_message_t, positions: &mut Positions) -> Option<Fetched> {
        // SAFETY: the message is alive; its error text lives as long.
        let reason = || unsafe { text(rd::rd_kafka_message_errstr(message)) };
        let topic = self.batch.topic().clone();
        let partition = TopicPartition::new(topic.clone(), self.partition);
        let (failure, is_current) = match known(code(&raw const message.err)) {
            RDKafkaErrorCode::PartitionEOF => {
                let end = Fetched::End { topic, partition: self.partition, offset: message.offset };
                return positions.ended(&partition, message.offset).then_some(end);
            }
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                match positions.out_of_range(&partition, message.offset)? {
                    OutOfRange::Current => (PartitionFailure::OutOfRange { offset: message.offset }, true),
                    OutOfRange::Truncated { next } => {
                        (PartitionFailure::Truncated { offset: next, reason: reason() }, true)
                    }
                    OutOfRange::LowestUnknown => (PartitionFailure::Unavailable(reason()), true),
                    OutOfRange::Outdated => return None,
                }
            }
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                (PartitionFailure::Unauthorized, positions.failed(&partition))
            }
            code if may_be_temporary(code, message.offset) => {
                (PartitionFailure::Unavailable(reason()), positions.failed(&partition))
            }
            code => {
                let mut reason = reason();
                if code == RDKafkaErrorCode::BadCompression {
                    reason.push_str(UNPACKED_TOO_LARGE);
                }
                let failure = PartitionFailure::Unreadable { offset: message.offset, reason };
                (failure, positions.failed(&partition))
            }
        };
        is_current.then_some(Fetched::Failed { topic, partition: self.partition, failure })
    }
}

/// Whether librdkafka fetches from the same offset again after this error.
///
/// It does so after each code of a broker. It returns the code, waits for `fetch.error.backoff.ms`
/// and leaves the fetch position unchanged (2.12.1, `rd_kafka_fetch_reply_handle_partition_error`).
/// Codes of its own are below `Unknown`, and come from batches that it has moved past. Errors of
/// other requests have no `offset`, except a failed look-up of the lowest offset. It is repeated
/// ([`OutOfRange::LowestUnknown`]).
fn may_be_temporary(code: RDKafkaErrorCode, offset: i64) -> bool {
    match code {
        RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownPartition => true,
        // No further fetch helps.
        RDKafkaErrorCode::InvalidMessage
        | RDKafkaErrorCode::MessageSizeTooLarge
        | RDKafkaErrorCode::ClusterAuthorizationFailed
        | RDKafkaErrorCode::UnsupportedVersion
        | RDKafkaErrorCode::UnsupportedCompressionType => false,
        code => (offset >= 0 || offset == LOWEST) && code as i32 >= RDKafkaErrorCode::Unknown as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_brokers_may_be_temporary_and_unreadable_batches_are_not() {
        use RDKafkaErrorCode as Code;
        let temporary = [Code::Unknown, Code::KafkaStorageError, Code::RequestTimedOut];
        assert!(temporary.into_iter().all(|code| may_be_temporary(code, 0)));
        assert!(may_be_temporary(Code::UnknownTopic, -1001), "a rebalance will revoke it");
        let unreadable = [
            Code::BadMessage,
            Code::BadCompression,
            Code::NotImplemented,
            Code::InvalidMessage,
            Code::MessageSizeTooLarge,
        ];
        assert!(!unreadable.into_iter().any(|code| may_be_temporary(code, 0)));
        assert!(may_be_temporary(Code::Unknown, LOWEST), "the look-up of the lowest offset is repeated");
    }

    #[test]
    fn another_topic_at_the_same_address_has_its_own_name() {
        let mut names = TopicNames::default();
        let first = names.name(8, c"orders");
        assert!(Arc::ptr_eq(&first, &names.name(8, c"orders")), "the same name is not copied");
        assert_eq!((&*names.name(8, c"orders.v2"), &*names.name(16, c"orders")), ("orders.v2", "orders"));
        assert_eq!((&*names.name(8, c"orders"), &*first), ("orders", "orders"));
    }
}
