//! The whole consumer on librdkafka's in-process cluster: what a scripted member hides, the client,
//! does its part here.
//!
//! The mock cluster's classic groups wait 3 s to start and answer commits in a rebalance otherwise
//! than a real broker, so exact counts across rebalances are asserted under KIP-848 only, where it
//! behaves as the real one.

#![expect(clippy::unwrap_used, reason = "a test's helpers")]

mod groups;
mod kit;
mod starts;
mod stuck;
mod topics;
