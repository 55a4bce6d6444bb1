//! The fenced unsafe code: direct calls of librdkafka.
//!
//! kmr calls librdkafka directly for batched consumption and for commits whose outcomes it reads.
//! All partitions are forwarded to one queue, which kmr creates. So librdkafka's queue limits bound
//! the prefetch of the whole client, for any number of partitions and any size of records.
//!
//! * `queue`: a queue of librdkafka with a wake-up; `fetch`: the reading end of the fetch queue;
//! * `batch`: messages of one partition, as the graph reads them; `header_bytes`: the memory of
//!   their headers;
//! * `replies`: requests for commits and topic ids, and their replies; `log_ends`: requests for the
//!   ends of logs;
//! * `brokers`: adding bootstrap servers; `limits`: changing a limit of a running client;
//! * `token`: setting the token for SASL/OAUTHBEARER;
//! * `watermarks`: the end of a log by the last fetch response;
//! * `message_headers`: the headers of a message of rdkafka;
//! * `groups`: the members and committed offsets of any group;
//! * `pattern`: matching names of topics; `raw`: strings, bytes and error codes of C.
//!
//! Invariants that make this sound, all kept inside this folder:
//! 1. Every queue handle and every message batch keeps the client alive, so `rd_kafka_t` outlives
//!    them.
//! 2. A message is owned by exactly one `MessageBatch`, which destroys it on drop. Records borrow
//!    from the batch.
//! 3. The wake-up callback's opaque pointer is an `Arc<Notify>` that the queue owns. The callback
//!    is disabled before the `Arc` is released, under the queue's own lock (`rdkafka_queue.c`,
//!    `rd_kafka_q_cb_event_enable`).
//! 4. The callback runs under the queue's lock, on a thread of librdkafka. It only calls
//!    `Notify::notify_one`, which does not block, call back or unwind.
//! 5. Headers are parsed lazily into the message. So a record is neither `Send` nor `Sync`, and a
//!    batch is not `Sync`.

mod batch;
pub(super) mod brokers;
pub(super) mod fetch;
pub(super) mod groups;
mod header_bytes;
pub(super) mod limits;
pub(super) mod log_ends;
pub(super) mod message_headers;
pub(super) mod pattern;
pub(super) mod queue;
mod raw;
pub(super) mod replies;
pub(super) mod token;
pub(super) mod watermarks;
