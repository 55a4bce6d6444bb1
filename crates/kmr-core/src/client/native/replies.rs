//! Requests for commits and topic ids, and their replies: events of a queue.

use std::ffi::{CString, c_char};
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;

use super::queue::Queue;
use super::raw::{code, known, rd_kafka_commit_queue, rd_kafka_error_code, rd_kafka_event_error, text};

/// The error code of one partition in a reply.
pub(in crate::client) struct PartitionCode {
    pub(in crate::client) topic: String,
    pub(in crate::client) partition: i32,
    pub(in crate::client) code: RDKafkaErrorCode,
}

/// The reply to a commit.
pub(in crate::client) struct CommitReply {
    /// The request's own error code. `NoError`: the partitions' codes count.
    pub(in crate::client) request: RDKafkaErrorCode,
    pub(in crate::client) partitions: Vec<PartitionCode>,
}

impl Queue {
    /// Sends a commit whose reply arrives in this queue.
    pub(in crate::client) fn commit(&self, offsets: &TopicPartitionList) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: client, list and queue are alive; librdkafka copies the list. Without a callback,
        // the reply becomes an event of this queue.
        let result = unsafe {
            let client = self.client.get().client().native_ptr();
            rd_kafka_commit_queue(client, offsets.ptr(), self.handle.as_ptr(), None, ptr::null_mut())
        };
        if result == 0 { Ok(()) } else { Err(known(result)) }
    }

    /// The reply to a commit, if it has arrived. `None`: the queue is empty, so that its reader is
    /// woken for the next event.
    pub(in crate::client) fn commit_reply(&self) -> Option<CommitReply> {
        loop {
            if let Some(reply) = self.next_commit_reply()? {
                return Some(reply);
            }
        }
    }

    /// Takes the next event. `Some(None)`: it is no reply to a commit.
    fn next_commit_reply(&self) -> Option<Option<CommitReply>> {
        // SAFETY: the queue is alive; the event is owned here and destroyed below, after its last
        // use.
        unsafe {
            let event = NonNull::new(rd::rd_kafka_queue_poll(self.handle.as_ptr(), 0))?;
            let is_reply = rd::rd_kafka_event_type(event.as_ptr()) == rd::RD_KAFKA_EVENT_OFFSET_COMMIT;
            let reply = is_reply.then(|| CommitReply {
                request: known(rd_kafka_event_error(event.as_ptr())),
                partitions: elements(rd::rd_kafka_event_topic_partition_list(event.as_ptr())),
            });
            rd::rd_kafka_event_destroy(event.as_ptr());
            Some(reply)
        }
    }
}

/// Reads a list that librdkafka owns.
///
/// # Safety
/// `list` is null or a live list.
unsafe fn elements(list: *mut rd::rd_kafka_topic_partition_list_t) -> Vec<PartitionCode> {
    // SAFETY: the caller's promise; `cnt` elements are there.
    let Some(list) = (unsafe { list.as_ref() }) else { return Vec::new() };
    let count = usize::try_from(list.cnt).unwrap_or(0);
    if count == 0 || list.elems.is_null() {
        return Vec::new();
    }
    // SAFETY: as above.
    let elements = unsafe { slice::from_raw_parts(list.elems, count) };
    let read = |element: &rd::rd_kafka_topic_partition_t| PartitionCode {
        // SAFETY: each element's topic is a C string that lives as long as the list.
        topic: unsafe { text(element.topic) },
        partition: element.partition,
        code: known(code(&raw const element.err)),
    };
    elements.iter().map(read).collect()
}

/// Kafka's topic id: it differs between topics that had the same name.
pub(in crate::client) type TopicId = (i64, i64);

/// One topic in the reply to a request for topic ids.
pub(in crate::client) struct DescribedTopic {
    pub(in crate::client) name: String,
    pub(in crate::client) code: RDKafkaErrorCode,
    /// `None`: the brokers are older than topic ids.
    pub(in crate::client) id: Option<TopicId>,
}

/// The reply to a request for topic ids.
pub(in crate::client) struct TopicIdsReply {
    /// The request's own error code.
    pub(in crate::client) request: RDKafkaErrorCode,
    pub(in crate::client) topics: Vec<DescribedTopic>,
}

impl Queue {
    /// The broker that receives admin requests, if it is known.
    pub(in crate::client) fn controller(&self) -> Option<i32> {
        // SAFETY: the client is alive; with a timeout of 0 the call only reads what is known.
        let id = unsafe { rd::rd_kafka_controllerid(self.client.get().client().native_ptr(), 0) };
        (id >= 0).then_some(id)
    }

    /// Requests the ids of topics. The reply arrives in this queue. `false`: a name is invalid.
    pub(in crate::client) fn request_topic_ids(&self, topics: &[&str], timeout: Duration) -> bool {
        let names: Result<Vec<CString>, _> = topics.iter().map(|topic| CString::new(*topic)).collect();
        let Ok(names) = names else { return false };
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: client and queue are alive; librdkafka copies names and options before it
        // returns, and both handles are released here, once. A null error text of size 0 is
        // allowed.
        unsafe {
            let client = self.client.get().client().native_ptr();
            let options = rd::rd_kafka_AdminOptions_new(
                client,
                rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            );
            rd::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
            let collection =
                rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            rd::rd_kafka_DescribeTopics(client, collection, options, self.handle.as_ptr());
            rd::rd_kafka_TopicCollection_destroy(collection);
            rd::rd_kafka_AdminOptions_destroy(options);
        }
        true
    }

    /// The reply to a request for topic ids, if it has arrived. `None`: the queue is empty.
    pub(in crate::client) fn topic_ids_reply(&self) -> Option<TopicIdsReply> {
        loop {
            if let Some(reply) = self.next_topic_ids_reply()? {
                return Some(reply);
            }
        }
    }

    /// Takes the next event. `Some(None)`: it is no reply to a request for topic ids.
    fn next_topic_ids_reply(&self) -> Option<Option<TopicIdsReply>> {
        // SAFETY: the queue is alive; the event is owned here and destroyed below, after the last
        // use of what it owns.
        unsafe {
            let event = NonNull::new(rd::rd_kafka_queue_poll(self.handle.as_ptr(), 0))?;
            let result = rd::rd_kafka_event_DescribeTopics_result(event.as_ptr());
            let reply = (!result.is_null()).then(|| TopicIdsReply {
                request: known(rd_kafka_event_error(event.as_ptr())),
                topics: described_topics(result),
            });
            rd::rd_kafka_event_destroy(event.as_ptr());
            Some(reply)
        }
    }
}

/// Reads the descriptions of topics.
///
/// # Safety
/// `result` is a live result.
unsafe fn described_topics(result: *const rd::rd_kafka_DescribeTopics_result_t) -> Vec<DescribedTopic> {
    let mut count = 0;
    // SAFETY: the caller's promise; the out pointer is valid.
    let topics = unsafe { rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count) };
    if topics.is_null() {
        return Vec::new();
    }
    // SAFETY: `count` descriptions are there, alive as long as the result.
    let topics = unsafe { slice::from_raw_parts(topics, count) };
    let read = |topic: &*const rd::rd_kafka_TopicDescription_t| {
        // SAFETY: name, error and id live as long as the description; an error may be null, which
        // is no error.
        unsafe {
            let name = text(rd::rd_kafka_TopicDescription_name(*topic));
            let code = rd_kafka_error_code(rd::rd_kafka_TopicDescription_error(*topic));
            let id = rd::rd_kafka_TopicDescription_topic_id(*topic).as_ref().map(|id| {
                let high = rd::rd_kafka_Uuid_most_significant_bits(id);
                (high, rd::rd_kafka_Uuid_least_significant_bits(id))
            });
            DescribedTopic { name, code: known(code), id: id.filter(|id| *id != (0, 0)) }
        }
    };
    topics.iter().map(read).collect()
}
