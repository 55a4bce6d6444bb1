//! The client of the registry and the stages that use it, on a registry in this process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod faults;
mod formats;
mod kit;
mod tls;
