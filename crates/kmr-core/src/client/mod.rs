//! The Kafka client: librdkafka behind the seam of `member`.
//!
//! * `native`: the fenced unsafe code: one fetch queue for all partitions, and commits with their own answers;
//! * `context`: librdkafka's callbacks, turned into events;
//! * `threads`: the thread that polls and the thread that makes blocking calls;
//! * `kafka_member`: the group member on top of them;
//! * `connect`: start-up, with the checks that name what is wrong.

mod connect;
mod context;
mod kafka_member;
#[allow(
    unsafe_code,
    reason = "the one place that calls librdkafka directly; every site says why it is sound"
)]
mod native;
mod threads;

pub(crate) use connect::Connect;
