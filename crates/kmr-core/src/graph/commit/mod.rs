//! The one place that commits offsets.

pub(crate) mod ledger;
