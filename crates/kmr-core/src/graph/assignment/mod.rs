//! Assignments of partitions: their ids, and the states that all stages follow.

pub(crate) mod id;
pub(crate) mod states;
