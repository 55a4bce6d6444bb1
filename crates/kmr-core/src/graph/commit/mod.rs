//! The one place that commits offsets.

pub(crate) mod committer;
pub(crate) mod entry;
pub(crate) mod handle;
pub(crate) mod leaving;
pub(crate) mod ledger;
pub(crate) mod offset_tracker;
pub(crate) mod plan_state;
