//! The status server over HTTP, with consumers on an embedded cluster.

#![expect(clippy::unwrap_used, reason = "a test's helpers")]

mod actions;
mod kit;
mod listening;
mod paths;
mod pipeline;
