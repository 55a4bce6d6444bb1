//! The map phase: one task per partition maps borrowed records in place and sends their rows.
//!
//! `phase` connects the map stages to the tasks. `partition` is the task, and `wait` is where it
//! waits. `loaded` maps records in place. `builder` collects rows and failures, and `send` sends
//! them. `reorder_buffer` orders the records that have to wait. `pending` waits for one of them,
//! and `retry` decides whether it is mapped again. `yielding` decides when the task yields.
//!
//! Invariants:
//! 1. Tracked rows hold records in the order of their offsets, each once, whatever order they were
//!    mapped in. They are observed before they are sent.
//! 2. The rows of a record travel together. A failed record leaves no row.
//! 3. A record that is not mapped when the partition stops was never observed, so the next owner
//!    reads it again. That includes mapped records that wait for an earlier one.
//! 4. A partition never waits for the mapper or the retries of another partition. The only wait is
//!    the hand-off, for a few milliseconds.

pub(crate) mod builder;
mod loaded;
mod partition;
pub(crate) mod pending;
mod phase;
pub(crate) mod reorder_buffer;
mod retry;
mod send;
mod wait;
pub(crate) mod yielding;

pub(crate) use self::phase::{MAX_OFFLOADED, MapPhase, Mapping, PartitionInput};

#[cfg(test)]
mod tests;
