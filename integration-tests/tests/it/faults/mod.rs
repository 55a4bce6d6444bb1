//! The delivery promise under faults on a real broker, one row of figures for each fault.
//!
//! Members join, leave and die, a broker restarts, a group changes its protocol, a sink stalls, and
//! topics get partitions or are deleted. Each row ends with the same check (`figures.rs`): every
//! produced record is stored and committed. The rows are small here. `cargo xtask soak` runs them
//! with full counts and prints their figures as one table.

// Helpers without tests.
mod figures;
mod group;
mod outcome;
mod protocol;

mod broker;
mod deletion;
mod growth;
mod joins;
mod kills;
mod rolls;
mod stall;
