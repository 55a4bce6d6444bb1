//! Fetch: polls the fetch queue and hands records to the map tasks of their partitions.
//!
//! `intake` is the task. `routes` leads to the map tasks. `handoff` keeps a batch on one thread.

pub(crate) mod handoff;
pub(crate) mod intake;
pub(crate) mod routes;
