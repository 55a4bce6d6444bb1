//! The promise on a real broker, one row for each thing that happens to consumers: members join, leave and die, a broker
//! restarts, a group changes its protocol, a sink stalls, topics grow and go.
//!
//! Each row ends with the same verdict (`figures.rs`): every produced record is in the table, and what is committed is
//! where the log ends. The rows are small here; `cargo xtask soak` runs them with the full counts and prints their
//! figures as one table.

mod figures;
mod group;

mod broker;
mod deletion;
mod growth;
mod joins;
mod kills;
mod rolls;
mod stall;
