//! Fetch: polls the fetch queue and hands records to the map tasks of their partitions.
//!
//! `intake` is the task. `routes` leads to the map tasks. `hand_off` keeps a batch on one thread.

pub(crate) mod hand_off;
pub(crate) mod intake;
pub(crate) mod routes;
