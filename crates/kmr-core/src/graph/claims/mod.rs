//! Claims tie rows to their records until both are finished.

pub(crate) mod claim;
pub(crate) mod tracked_rows;
