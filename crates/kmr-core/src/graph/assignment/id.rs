//! The identity of one assignment of one partition.

use crate::record::TopicPartition;

/// The id of one assignment of one partition, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AssignmentId(pub(crate) u64);

/// A partition during one assignment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) partition: TopicPartition,
    pub(crate) id: AssignmentId,
}
