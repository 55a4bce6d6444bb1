//! The report of one partition at the end of a consumer.

/// How one partition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionReport {
    /// The offset committed last, if this consumer committed any.
    pub committed: Option<i64>,
    /// The lowest offset that was read and is not finished. The drain timeout or a forced stop left
    /// it unfinished, or a reducer discarded its rows at shutdown
    /// ([`PartialBatch::Discard`](crate::PartialBatch::Discard)).
    pub unfinished_from: Option<i64>,
}
