//! How one partition ended.

/// How one partition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionReport {
    /// The offset committed last, if this consumer committed any.
    pub committed: Option<i64>,
    /// The lowest offset that was read and is not finished: what the deadline or a second signal cut off; or rows that a reducer
    /// dropped at shutdown, as it was told to.
    pub unfinished_from: Option<i64>,
}
