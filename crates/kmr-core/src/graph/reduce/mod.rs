//! Reduce stages: rows in, batches to the sink. The error branch runs the same code.
//!
//! `task` is the loop of one stage, on the `runtime` that it shares with exactly-once mode. `batch`
//! decides when the open batch is due, and `size` counts its rows. `attempts` delivers a frozen
//! batch, and `downstream` takes the output.

pub(crate) mod attempts;
pub(crate) mod batch;
pub(crate) mod downstream;
pub(crate) mod runtime;
pub(crate) mod size;
pub(crate) mod task;
