//! The memory budget, and each partition's fair share of it (M1).

pub(crate) mod budget;
pub(crate) mod fair_share;
