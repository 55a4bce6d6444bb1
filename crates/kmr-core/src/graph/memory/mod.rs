//! The memory budget (one admission point, M1), and each partition's fair share of it.

pub(crate) mod budget;
pub(crate) mod fair_share;
