//! The only place that commits offsets: the ledger's entries in, one commit at a time out.
//!
//! `ledger` defines what tasks report, and `entries` applies it. `entry` is one assignment: its
//! `offset_tracker` and, in exactly-once mode, its `plan_state`. `committer` runs the task,
//! `handle` is the coordinator's side of it, and `leaving` decides when a drained assignment is
//! released.

pub(crate) mod committer;
mod entries;
mod entry;
pub(crate) mod handle;
pub(crate) mod leaving;
pub(crate) mod ledger;
pub(crate) mod offset_tracker;
pub(crate) mod plan_state;
