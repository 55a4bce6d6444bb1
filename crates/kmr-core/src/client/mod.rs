//! The Kafka client: librdkafka behind the seam of `member`.
//!
//! * `native`: the fenced unsafe code: one fetch queue for all partitions, and commits with their own answers;
//! * `context`: librdkafka's callbacks, turned into events;
//! * `bootstrap`: how a client that has lost all brokers finds them again;
//! * `threads`: the thread that polls and the thread that makes blocking calls;
//! * `positions`: what has been handed out of each partition, and the gate between polling and moving positions;
//! * `fetcher`: assign, unassign, seek, pause;
//! * `starts`: where partitions start, and what the logs hold;
//! * `commits`: what the answers to commits mean;
//! * `topic_ids`: whether a topic is still the one that was read;
//! * `logs`: which logs partitions have; `reset`: the operator's own hand on offsets;
//! * `kafka_member`, `groupless`: the member of a group on top of them, and one without a group;
//! * `reader`: a client of its own that reads records again;
//! * `connect`: start-up, with the checks that name what is wrong.

mod bootstrap;
mod commits;
mod connect;
mod context;
mod fetcher;
mod groupless;
mod kafka_member;
mod logs;
#[allow(
    unsafe_code,
    reason = "the one place that calls librdkafka directly; every site says why it is sound"
)]
mod native;
mod positions;
mod reader;
mod reset;
mod starts;
mod threads;
mod topic_ids;

#[cfg(test)]
mod tests;

pub use bootstrap::Bootstrap;
pub(crate) use connect::Connect;
pub use reset::reset_offsets;
