//! The fenced unsafe code: batched consumption through one queue for all partitions, and commits with answers of their own.
//!
//! All partitions are forwarded to one queue of ours, so librdkafka's queue limits bound the prefetch of the client as a
//! whole, whatever the number of partitions and the size of records.
//!
//! Invariants that make this sound, all kept inside this file:
//! 1. Every queue handle and every message batch keeps the client alive, so `rd_kafka_t` outlives them.
//! 2. A message is owned by exactly one [`MessageBatch`], which destroys it on drop; records borrow from the batch.
//! 3. The wake-up callback's opaque pointer is an `Arc<Notify>` that the queue owns; the callback is disabled, under the
//!    queue's own lock (rdkafka_queue.c, `rd_kafka_q_cb_event_enable`), before the `Arc` is released.
//! 4. The callback runs under the queue's lock, on a thread of librdkafka's: it only calls `Notify::notify_one`, which
//!    neither blocks, nor calls back, nor unwinds.
//! 5. Headers are parsed lazily into the message, so a record is neither `Send` nor `Sync`, and a batch is not `Sync`.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::{Arc, OnceLock};

use rdkafka::bindings as rd;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{ClientContext, TopicPartitionList};
use tokio::sync::Notify;

use super::positions::{Gate, Positions};
use super::threads::ClientRef;
use crate::member::{FetchQueue, Fetched, PartitionFailure, RECORD_OVERHEAD, RecordBatch};
use crate::record::{Header, Record, RecordSource, TopicPartition};
use crate::util::future::BoxFuture;

/// Adds servers to those that the client starts from. One that it has as such already stays as it is.
pub(super) fn add_brokers<C: ClientContext>(client: &rdkafka::client::Client<C>, servers: &CStr) {
    // SAFETY: the client is alive; librdkafka copies the text, and locks its list itself.
    unsafe { rd::rd_kafka_brokers_add(client.native_ptr(), servers.as_ptr()) };
}

/// A queue of librdkafka's with a wake-up.
pub(super) struct Queue {
    handle: NonNull<rd::rd_kafka_queue_t>,
    wake: Arc<Notify>,
    client: ClientRef,
}

// SAFETY: librdkafka's queues may be used, and released, from any thread; they lock themselves.
unsafe impl Send for Queue {}
// SAFETY: as above; no method hands out what is not behind the queue's lock.
unsafe impl Sync for Queue {}

/// See invariant 4.
unsafe extern "C" fn wake_up(_: *mut rd::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: `opaque` is the queue's `Arc<Notify>`, alive while the callback is enabled (invariant 3).
    unsafe { &*opaque.cast::<Notify>() }.notify_one();
}

impl Queue {
    /// A new queue of the client. `None`: librdkafka is out of memory.
    pub(super) fn new(client: ClientRef) -> Option<Self> {
        let wake = Arc::new(Notify::new());
        // SAFETY: the client is alive; `wake` is owned by the value that is returned (invariant 3).
        let handle = unsafe {
            let handle = NonNull::new(rd::rd_kafka_queue_new(client.get().client().native_ptr()))?;
            rd::rd_kafka_queue_cb_event_enable(
                handle.as_ptr(),
                Some(wake_up),
                Arc::as_ptr(&wake).cast_mut().cast(),
            );
            handle
        };
        Some(Self { handle, wake, client })
    }

    /// Sends what is fetched from a partition here, instead of to the client's own queue. To be called before the partition is
    /// assigned, each time. `false`: there is no such topic name or partition number.
    pub(super) fn forward(&self, topic: &str, partition: i32) -> bool {
        let Ok(topic) = CString::new(topic) else { return false };
        // SAFETY: the client and this queue are alive; the partition's handle is released before returning, which leaves
        // the forwarding in place.
        unsafe {
            let client = self.client.get().client().native_ptr();
            let queue = rd::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition);
            if queue.is_null() {
                return false;
            }
            rd::rd_kafka_queue_forward(queue, self.handle.as_ptr());
            rd::rd_kafka_queue_destroy(queue);
        }
        true
    }

    /// Resolves when the queue has become non-empty since it was last found empty. Cancel safe.
    pub(super) async fn readable(&self) {
        self.wake.notified().await;
    }

    /// Lets `readable` resolve.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: disables the callback before `wake` goes (invariant 3), then releases the handle, once.
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(self.handle.as_ptr(), None, ptr::null_mut());
            rd::rd_kafka_queue_destroy(self.handle.as_ptr());
        }
    }
}

/// The reading end of the fetch queue.
pub(super) struct NativeFetch {
    queue: Arc<Queue>,
    messages: Vec<*mut rd::rd_kafka_message_t>,
    topics: TopicNames,
    gate: Arc<Gate>,
    /// Has partitions restarted that need it; does not wait.
    restart: Box<dyn Fn() + Send>,
}

// SAFETY: `messages` is empty between calls; the rest is `Send`.
unsafe impl Send for NativeFetch {}

impl NativeFetch {
    pub(super) fn new(queue: Arc<Queue>, gate: Arc<Gate>, restart: impl Fn() + Send + 'static) -> Self {
        Self { queue, messages: Vec::new(), topics: TopicNames::default(), gate, restart: Box::new(restart) }
    }

    fn topic(&mut self, topic: *mut rd::rd_kafka_topic_t) -> Arc<str> {
        // SAFETY: a message keeps its topic object alive, and with it its name, which is a C string and never null.
        let name = unsafe { CStr::from_ptr(rd::rd_kafka_topic_name(topic)) };
        self.topics.of(topic as usize, name)
    }

    /// Cuts what was taken into runs of one partition, and notes how far each has come.
    fn cut(&mut self, positions: &mut Positions) -> Vec<Fetched> {
        let mut fetched = Vec::new();
        let mut run: Option<Run> = None;
        // Most of what is taken at once is one run: its list need not grow.
        let mut left = self.messages.len();
        for pointer in std::mem::take(&mut self.messages) {
            let Some(pointer) = NonNull::new(pointer) else { continue };
            // SAFETY: a message that librdkafka has just handed out.
            let message = unsafe { pointer.as_ref() };
            let failed = code(&raw const message.err) != 0;
            if failed
                || run
                    .as_ref()
                    .is_none_or(|run| run.topic_object != message.rkt || run.partition != message.partition)
            {
                fetched.extend(run.take().and_then(|run| run.finish(positions)));
                let topic = if message.rkt.is_null() { "".into() } else { self.topic(message.rkt) };
                run = Some(Run::new(topic, message, left, self.queue.client.clone()));
            }
            left -= 1;
            if let Some(current) = &mut run {
                // Owned by the run from here on: destroyed with it, also if it is an error.
                current.batch.messages.push(pointer);
                current.bytes += message.len + message.key_len + RECORD_OVERHEAD;
                if failed {
                    fetched.extend(run.take().and_then(|run| run.failure(message, positions)));
                }
            }
        }
        fetched.extend(run.and_then(|run| run.finish(positions)));
        fetched
    }
}

impl FetchQueue for NativeFetch {
    fn poll(&mut self, max_records: usize) -> Vec<Fetched> {
        // Positions are being moved: who does it wakes us when it is done.
        let gate = self.gate.clone();
        let Some(mut positions) = gate.try_lock() else { return Vec::new() };
        self.messages.clear();
        self.messages.reserve(max_records);
        // SAFETY: `max_records` slots are writable, the call initialises the first `count` of them. Timeout 0: with a longer
        // one it would wait until all are full.
        let count = unsafe {
            let slots = self.messages.as_mut_ptr();
            rd::rd_kafka_consume_batch_queue(self.queue.handle.as_ptr(), 0, slots, max_records)
        };
        // SAFETY: see above.
        unsafe { self.messages.set_len(usize::try_from(count).unwrap_or(0)) };
        let fetched = self.cut(&mut positions);
        if positions.take_suspicion() {
            (self.restart)();
        }
        fetched
    }

    fn readable(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.queue.readable())
    }
}

/// Topic names by the address of librdkafka's topic object, so that a run of messages needs no copy of its own. An object is
/// alive only as long as something refers to it; another topic's may come to the same address.
#[derive(Default)]
struct TopicNames(HashMap<usize, Arc<str>>);

impl TopicNames {
    /// The name of the object at `address`, which is `now`.
    fn of(&mut self, address: usize, now: &CStr) -> Arc<str> {
        match self.0.get(&address) {
            Some(known) if known.as_bytes() == now.to_bytes() => known.clone(),
            _ => {
                let name: Arc<str> = now.to_string_lossy().into();
                self.0.insert(address, name.clone());
                name
            }
        }
    }
}

/// Messages in a row that are of one partition.
struct Run {
    topic_object: *mut rd::rd_kafka_topic_t,
    partition: i32,
    bytes: usize,
    batch: MessageBatch,
}

impl Run {
    /// Of at most `most` messages, which `message` is the first of.
    fn new(topic: Arc<str>, message: &rd::rd_kafka_message_t, most: usize, client: ClientRef) -> Self {
        let batch = MessageBatch { topic, messages: Vec::with_capacity(most), _client: client };
        Self { topic_object: message.rkt, partition: message.partition, bytes: 0, batch }
    }

    /// `None`: the partition is not assigned. librdkafka takes an assignment back later than kmr does where a rebalance has
    /// overtaken the answer to the one before.
    fn finish(self, positions: &mut Positions) -> Option<Fetched> {
        let Run { partition, bytes, mut batch, .. } = self;
        // The budget is charged for messages, not for room: of short runs there may be many.
        batch.messages.shrink_to_fit();
        let last = batch.len().checked_sub(1).map(|last| batch.offset(last))?;
        let is_ours = positions.handed_out(&TopicPartition::new(batch.topic.clone(), partition), last);
        is_ours.then(|| Fetched::Records {
            topic: batch.topic.clone(),
            partition,
            bytes,
            batch: Box::new(batch),
        })
    }

    /// What came in place of a message. `None`: it is not about the present assignment.
    fn failure(&self, message: &rd::rd_kafka_message_t, positions: &mut Positions) -> Option<Fetched> {
        // SAFETY: the message is alive; its error text lives as long.
        let reason = || unsafe { text(rd::rd_kafka_message_errstr(message)) };
        let partition = TopicPartition::new(self.batch.topic.clone(), self.partition);
        let (failure, is_ours) = match known(code(&raw const message.err)) {
            RDKafkaErrorCode::PartitionEOF => {
                let (topic, partition_number) = (self.batch.topic.clone(), self.partition);
                let end = Fetched::End { topic, partition: partition_number, offset: message.offset };
                return positions.ended(&partition, message.offset).then_some(end);
            }
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                let offset = Some(message.offset).filter(|offset| *offset >= 0);
                let is_ours = positions.out_of_range(&partition, message.offset);
                (PartitionFailure::OutOfRange { offset }, is_ours)
            }
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                (PartitionFailure::Unauthorized, positions.failed(&partition))
            }
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition => {
                (PartitionFailure::Gone(reason()), positions.failed(&partition))
            }
            _ => {
                let failure = PartitionFailure::Unreadable { offset: message.offset, reason: reason() };
                (failure, positions.failed(&partition))
            }
        };
        let topic = self.batch.topic.clone();
        is_ours.then_some(Fetched::Failed { topic, partition: self.partition, failure })
    }
}

/// Messages of one partition, destroyed together.
struct MessageBatch {
    topic: Arc<str>,
    messages: Vec<NonNull<rd::rd_kafka_message_t>>,
    // Last: the client must outlive the messages.
    _client: ClientRef,
}

// SAFETY: messages may be read and destroyed from any thread, one at a time; a batch is not `Sync` (invariant 5).
unsafe impl Send for MessageBatch {}

impl RecordBatch for MessageBatch {
    fn len(&self) -> usize {
        self.messages.len()
    }

    fn offset(&self, index: usize) -> i64 {
        // SAFETY: the batch owns its messages.
        unsafe { self.messages[index].as_ref() }.offset
    }

    fn record(&self, index: usize) -> Record<'_> {
        // SAFETY: the batch owns its messages, and the record borrows the batch. `KafkaMessage` is a transparent wrapper.
        let message = unsafe { self.messages[index].cast::<KafkaMessage>().as_ref() };
        let raw = &message.0;
        Record {
            topic: &self.topic,
            partition: raw.partition,
            offset: raw.offset,
            // SAFETY: librdkafka guarantees that many readable bytes while the message lives.
            key: unsafe { bytes(raw.key, raw.key_len) },
            // SAFETY: as above.
            payload: unsafe { bytes(raw.payload, raw.len) },
            source: message,
        }
    }
}

impl Drop for MessageBatch {
    fn drop(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: owned by this batch alone (invariant 2), destroyed once: `drain` empties the list.
            unsafe { rd::rd_kafka_message_destroy(message.as_ptr()) };
        }
    }
}

/// A message as the source of its timestamp and headers.
#[repr(transparent)]
struct KafkaMessage(rd::rd_kafka_message_t);

impl RecordSource for KafkaMessage {
    fn timestamp(&self) -> Option<i64> {
        // SAFETY: the message is alive; a null timestamp type pointer is allowed.
        let timestamp = unsafe { rd::rd_kafka_message_timestamp(&raw const self.0, ptr::null_mut()) };
        (timestamp >= 0).then_some(timestamp)
    }

    fn header(&self, index: usize) -> Option<Header<'_>> {
        let mut headers = ptr::null_mut();
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the message is alive and on one thread (invariant 5); the list and what it points to live as long as the
        // message. The out pointers are valid; they are written when the call returns 0.
        unsafe {
            if code_of(rd::rd_kafka_message_headers(&raw const self.0, &raw mut headers)) != 0 {
                return None;
            }
            if code_of(rd::rd_kafka_header_get_all(
                headers,
                index,
                &raw mut name,
                &raw mut value,
                &raw mut size,
            )) != 0
            {
                return None;
            }
            let key = CStr::from_ptr(name).to_string_lossy();
            Some(Header { key, value: bytes(value.cast_mut(), size) })
        }
    }
}

/// The answer to a commit.
pub(super) struct CommitAnswer {
    /// The request's own error code; 0 if the elements tell.
    pub(super) request: RDKafkaErrorCode,
    /// Topic, partition and error code of each element.
    pub(super) elements: Vec<(String, i32, RDKafkaErrorCode)>,
}

impl Queue {
    /// Sends a commit whose answer will come to this queue.
    pub(super) fn commit(&self, offsets: &TopicPartitionList) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: client, list and queue are alive; librdkafka copies the list. Without a callback, the answer becomes an
        // event of this queue.
        let result = unsafe {
            let client = self.client.get().client().native_ptr();
            rd::rd_kafka_commit_queue(client, offsets.ptr(), self.handle.as_ptr(), None, ptr::null_mut())
        };
        if code_of(result) == 0 { Ok(()) } else { Err(result.into()) }
    }

    /// The answer to a commit, if it has come.
    pub(super) fn commit_answer(&self) -> Option<CommitAnswer> {
        // SAFETY: the queue is alive; the event is owned here and destroyed below, after its last use.
        unsafe {
            let event = NonNull::new(rd::rd_kafka_queue_poll(self.handle.as_ptr(), 0))?;
            let is_answer = rd::rd_kafka_event_type(event.as_ptr()) == rd::RD_KAFKA_EVENT_OFFSET_COMMIT;
            let answer = is_answer.then(|| CommitAnswer {
                request: rd::rd_kafka_event_error(event.as_ptr()).into(),
                elements: elements(rd::rd_kafka_event_topic_partition_list(event.as_ptr())),
            });
            rd::rd_kafka_event_destroy(event.as_ptr());
            answer
        }
    }
}

/// What tells a topic from another one of the same name.
pub(super) type TopicId = (i64, i64);

/// What the brokers say about the ids of topics.
pub(super) struct TopicIdsAnswer {
    /// The request's own error code.
    pub(super) request: RDKafkaErrorCode,
    /// Name, error code and id of each topic; no id: the brokers are older than ids.
    pub(super) topics: Vec<(String, RDKafkaErrorCode, Option<TopicId>)>,
}

impl Queue {
    /// The broker that admin requests go to, if it is known.
    pub(super) fn controller(&self) -> Option<i32> {
        // SAFETY: the client is alive; with a timeout of 0 only what is known is looked at.
        let id = unsafe { rd::rd_kafka_controllerid(self.client.get().client().native_ptr(), 0) };
        (id >= 0).then_some(id)
    }

    /// Asks for the ids of topics; the answer will come to this queue. `false`: no such name can be.
    pub(super) fn ask_topic_ids(&self, topics: &[&str], timeout_millis: i32) -> bool {
        let names: Result<Vec<CString>, _> = topics.iter().map(|topic| CString::new(*topic)).collect();
        let Ok(names) = names else { return false };
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: client and queue are alive; librdkafka copies names and options before it returns, and both handles are
        // released here, once. A null error text of size 0 is allowed.
        unsafe {
            let client = self.client.get().client().native_ptr();
            let options = rd::rd_kafka_AdminOptions_new(
                client,
                rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            );
            rd::rd_kafka_AdminOptions_set_request_timeout(options, timeout_millis, ptr::null_mut(), 0);
            let collection =
                rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            rd::rd_kafka_DescribeTopics(client, collection, options, self.handle.as_ptr());
            rd::rd_kafka_TopicCollection_destroy(collection);
            rd::rd_kafka_AdminOptions_destroy(options);
        }
        true
    }

    /// The answer to a question for topic ids, if it has come.
    pub(super) fn topic_ids_answer(&self) -> Option<TopicIdsAnswer> {
        // SAFETY: the queue is alive; the event is owned here and destroyed below, after the last use of what it owns.
        unsafe {
            let event = NonNull::new(rd::rd_kafka_queue_poll(self.handle.as_ptr(), 0))?;
            let result = rd::rd_kafka_event_DescribeTopics_result(event.as_ptr());
            let answer = (!result.is_null()).then(|| TopicIdsAnswer {
                request: rd::rd_kafka_event_error(event.as_ptr()).into(),
                topics: topic_ids(result),
            });
            rd::rd_kafka_event_destroy(event.as_ptr());
            answer
        }
    }
}

/// Reads the descriptions of topics.
///
/// # Safety
/// `result` is a live result.
unsafe fn topic_ids(
    result: *const rd::rd_kafka_DescribeTopics_result_t,
) -> Vec<(String, RDKafkaErrorCode, Option<TopicId>)> {
    let mut count = 0;
    // SAFETY: the caller's promise; the out pointer is valid.
    let topics = unsafe { rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count) };
    if topics.is_null() {
        return Vec::new();
    }
    // SAFETY: `count` descriptions are there, alive as long as the result.
    let topics = unsafe { slice::from_raw_parts(topics, count) };
    let read = |topic: &*const rd::rd_kafka_TopicDescription_t| {
        // SAFETY: name, error and id live as long as the description; an error may be null, which is no error.
        unsafe {
            let name = text(rd::rd_kafka_TopicDescription_name(*topic));
            let error = rd::rd_kafka_error_code(rd::rd_kafka_TopicDescription_error(*topic));
            let id = rd::rd_kafka_TopicDescription_topic_id(*topic).as_ref().map(|id| {
                let high = rd::rd_kafka_Uuid_most_significant_bits(id);
                (high, rd::rd_kafka_Uuid_least_significant_bits(id))
            });
            (name, known(code(&raw const error)), id.filter(|id| *id != (0, 0)))
        }
    };
    topics.iter().map(read).collect()
}

/// Reads a list that librdkafka owns.
///
/// # Safety
/// `list` is null or a live list.
unsafe fn elements(list: *mut rd::rd_kafka_topic_partition_list_t) -> Vec<(String, i32, RDKafkaErrorCode)> {
    // SAFETY: the caller's promise; `cnt` elements are there.
    let Some(list) = (unsafe { list.as_ref() }) else { return Vec::new() };
    let count = usize::try_from(list.cnt).unwrap_or(0);
    if count == 0 || list.elems.is_null() {
        return Vec::new();
    }
    // SAFETY: as above.
    let elements = unsafe { slice::from_raw_parts(list.elems, count) };
    // SAFETY: each element's topic is a C string that lives as long as the list.
    elements.iter().map(|e| (unsafe { text(e.topic) }, e.partition, known(code(&raw const e.err)))).collect()
}

/// The error code of a number. Brokers newer than the library send numbers that its enum does not have, and reading them as the
/// enum would be undefined behaviour: those are `Unknown`.
fn known(number: i32) -> RDKafkaErrorCode {
    static KNOWN: OnceLock<HashMap<i32, RDKafkaErrorCode>> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let (mut descriptions, mut count) = (ptr::null(), 0);
        // SAFETY: the out pointers are valid; the table is static, and holds nothing but codes of this library.
        let table = unsafe {
            rd::rd_kafka_get_err_descs(&raw mut descriptions, &raw mut count);
            if descriptions.is_null() { &[] } else { slice::from_raw_parts(descriptions, count) }
        };
        // A table entry without a name is a gap: its code is 0.
        let named = table.iter().filter(|description| !description.name.is_null());
        named.map(|description| (code(&raw const description.code), description.code.into())).collect()
    });
    known.get(&number).copied().unwrap_or(RDKafkaErrorCode::Unknown)
}

/// The number of an error code, read without assuming that the enum knows it.
fn code(error: *const rd::rd_kafka_resp_err_t) -> i32 {
    // SAFETY: the enum is a C enum of 32 bits; callers pass a pointer to a live field.
    unsafe { error.cast::<i32>().read() }
}

fn code_of(error: rd::rd_kafka_resp_err_t) -> i32 {
    error as i32
}

/// # Safety
/// `pointer` is null, or `len` bytes are readable there for as long as `'m`.
unsafe fn bytes<'m>(pointer: *mut c_void, len: usize) -> Option<&'m [u8]> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { slice::from_raw_parts(pointer.cast::<u8>(), len) })
}

/// # Safety
/// `pointer` is null or a C string.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_topic_at_the_same_address_has_its_own_name() {
        let mut names = TopicNames::default();
        let first = names.of(8, c"orders");
        assert!(Arc::ptr_eq(&first, &names.of(8, c"orders")), "the same name is not copied");
        assert_eq!((&*names.of(8, c"orders.v2"), &*names.of(16, c"orders")), ("orders.v2", "orders"));
        assert_eq!((&*names.of(8, c"orders"), &*first), ("orders", "orders"));
    }

    #[test]
    fn codes_of_newer_brokers_are_unknown_and_the_others_are_themselves() {
        assert_eq!(known(0), RDKafkaErrorCode::NoError);
        assert_eq!(known(22), RDKafkaErrorCode::IllegalGeneration);
        assert_eq!(known(-140), RDKafkaErrorCode::AutoOffsetReset);
        assert_eq!(known(9999), RDKafkaErrorCode::Unknown);
    }
}
