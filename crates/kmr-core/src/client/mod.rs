//! The Kafka client: librdkafka under the traits of `member`.
//!
//! Groups, from the bottom up:
//!
//! * The client itself. `native` is the fenced unsafe code: the fetch queue, and commits with their
//!   outcomes. `context` turns librdkafka's callbacks into events. `bootstrap` helps a client that
//!   has lost all brokers. `credentials` has its token. `handle` and `threads` are the reference to
//!   the client, the thread that polls and the thread that makes blocking calls. `live_clients`
//!   counts clients until they are destroyed. `errors`, `timeouts` and `partition_list` serve them
//!   all.
//! * Partitions. `positions` knows the position of each partition and has the gate between polling
//!   and moving positions. `fetcher` makes the calls that move them. `fetch_limit` bounds what a
//!   response unpacks to. `log_reach` compares positions with the ends of logs, with what
//!   `statistics` show. `starts` reads offsets, and
//!   `first_topics` what was added since. `commits` turns replies into outcomes. `topic_ids`
//!   and `logs` identify topics and their logs.
//! * Members. `partition_calls` has what both kinds of members do. `kafka_member` is in a group,
//!   with `membership` for static members.
//!   `groupless` is not, with `topic_watch` and `remembered_offsets` in place of a group.
//! * Users of a client. `subscription` matches names of topics. `open`, `topic_check` and `leaders`
//!   create a client. `connect` makes it a member, after `coordinator_check`. `renewal` creates the
//!   next one when credentials have changed. `reader` and `reading` read records again. `reset`
//!   sets the offsets of a group.

mod bootstrap;
mod commits;
mod connect;
mod context;
mod coordinator_check;
mod credentials;
mod errors;
mod fetch_limit;
mod fetcher;
mod first_topics;
mod groupless;
mod handle;
mod kafka_member;
mod leaders;
mod live_clients;
mod log_reach;
mod logs;
mod membership;
#[allow(
    unsafe_code,
    reason = "the one place that calls librdkafka directly; every call explains why it is sound"
)]
mod native;
mod open;
mod partition_calls;
mod partition_list;
mod positions;
mod reader;
mod reading;
mod remembered_offsets;
mod renewal;
mod reset;
mod starts;
mod statistics;
mod subscription;
mod threads;
mod timeouts;
mod topic_check;
mod topic_ids;
mod topic_metadata;
mod topic_watch;

#[cfg(test)]
mod tests;

pub use bootstrap::Bootstrap;
pub(crate) use connect::Connect;
pub use credentials::Credentials;
pub use live_clients::{LiveClient, LiveClients};
pub use native::groups::{
    GroupDescription, GroupError, GroupMember, GroupOffset, describe_group, group_offsets,
};
pub use native::message_headers::message_headers;
pub(crate) use open::OpenOptions;
pub use reset::reset_offsets;
pub use subscription::subscription_matches;
