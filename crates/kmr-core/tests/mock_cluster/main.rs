//! The whole consumer on librdkafka's in-process cluster. These tests cover the client, which tests
//! with a scripted member do not.
//!
//! The mock cluster's classic groups wait 3 s to start, and respond to commits in a rebalance
//! differently from a real broker. So exact counts across rebalances are asserted only under
//! KIP-848, where the mock behaves like a real broker.

#![expect(clippy::unwrap_used, reason = "a test's helpers")]

mod groups;
mod kit;
#[cfg(feature = "metrics")]
mod metrics;
mod starts;
#[cfg(feature = "metrics")]
mod status;
mod stuck;
mod topics;
