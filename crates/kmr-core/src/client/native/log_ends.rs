//! Requests for the ends of logs, and their replies: events of a queue.

use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;

use super::queue::Queue;
use super::raw::{code, known, text};

/// The end of one log, as far as a broker may return it.
pub(in crate::client) struct LogEnd {
    pub(in crate::client) topic: String,
    pub(in crate::client) partition: i32,
    pub(in crate::client) end: Result<i64, NoEnd>,
}

/// Why the end of a log is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::client) enum NoEnd {
    /// The leader did not respond in time.
    NoResponse,
    /// The brokers name no leader, or one that is not in their list.
    NoLeader,
    /// The leader returned an error, or the partition does not exist.
    Rejected,
}

impl Queue {
    /// Requests the ends of logs, each of its leader. `partitions` have the offset
    /// [`Offset::End`](rdkafka::Offset::End). `committed_only`: up to the last stable offset. The
    /// reply arrives in this queue, when all leaders have responded or after the timeout.
    pub(in crate::client) fn request_log_ends(
        &self,
        partitions: &TopicPartitionList,
        committed_only: bool,
        timeout: Duration,
    ) {
        use rd::rd_kafka_IsolationLevel_t::{
            RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED, RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        };
        let isolation = match committed_only {
            true => RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
            false => RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        };
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: client, queue and list are alive; librdkafka copies list and options before it
        // returns, and the options are released here, once. A null error text of size 0 is allowed,
        // and so is releasing a null error.
        unsafe {
            let client = self.client.get().client().native_ptr();
            let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
            let options = rd::rd_kafka_AdminOptions_new(client, operation);
            rd::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
            rd::rd_kafka_error_destroy(rd::rd_kafka_AdminOptions_set_isolation_level(options, isolation));
            rd::rd_kafka_ListOffsets(client, partitions.ptr(), options, self.handle.as_ptr());
            rd::rd_kafka_AdminOptions_destroy(options);
        }
    }

    /// The reply to a request for the ends of logs, if it has arrived. `None`: the queue is empty.
    pub(in crate::client) fn log_ends_reply(&self) -> Option<Vec<LogEnd>> {
        loop {
            if let Some(reply) = self.next_log_ends_reply()? {
                return Some(reply);
            }
        }
    }

    /// Takes the next event. `Some(None)`: it is no reply to a request for the ends of logs.
    fn next_log_ends_reply(&self) -> Option<Option<Vec<LogEnd>>> {
        // SAFETY: the queue is alive; the event is owned here and destroyed below, after the last
        // use of what it owns.
        unsafe {
            let event = NonNull::new(rd::rd_kafka_queue_poll(self.handle.as_ptr(), 0))?;
            let result = rd::rd_kafka_event_ListOffsets_result(event.as_ptr());
            let reply = (!result.is_null()).then(|| log_ends(result));
            rd::rd_kafka_event_destroy(event.as_ptr());
            Some(reply)
        }
    }
}

/// Reads the ends of logs. A request that has failed as a whole has none: no leader is known, or no
/// broker responds.
///
/// # Safety
/// `result` is a live result.
unsafe fn log_ends(result: *const rd::rd_kafka_ListOffsets_result_t) -> Vec<LogEnd> {
    let mut count = 0;
    // SAFETY: the caller's promise; the out pointer is valid.
    let infos = unsafe { rd::rd_kafka_ListOffsets_result_infos(result, &raw mut count) };
    if infos.is_null() {
        return Vec::new();
    }
    // SAFETY: `count` elements are there, alive as long as the result.
    let infos = unsafe { slice::from_raw_parts(infos, count) };
    let read = |info: &*const rd::rd_kafka_ListOffsetsResultInfo_t| {
        // SAFETY: the partition lives as long as its element, and its topic is a C string.
        unsafe {
            let partition = rd::rd_kafka_ListOffsetsResultInfo_topic_partition(*info).as_ref()?;
            let end = match known(code(&raw const partition.err)) {
                RDKafkaErrorCode::NoError if partition.offset >= 0 => Ok(partition.offset),
                // librdkafka sets no error for a request that has failed.
                RDKafkaErrorCode::NoError => Err(NoEnd::NoResponse),
                RDKafkaErrorCode::LeaderNotAvailable => Err(NoEnd::NoLeader),
                _ => Err(NoEnd::Rejected),
            };
            Some(LogEnd { topic: text(partition.topic), partition: partition.partition, end })
        }
    };
    infos.iter().filter_map(read).collect()
}
