//! From the fetch queue to the tasks of the partitions.

pub(crate) mod handoff;
pub(crate) mod intake;
pub(crate) mod routes;
