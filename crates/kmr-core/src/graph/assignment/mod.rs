//! Assignments of partitions: their identity, and the states that stages follow.

pub(crate) mod id;
pub(crate) mod states;
