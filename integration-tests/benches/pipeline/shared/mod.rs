//! The job, the rows and the meter of all contenders, so that they do the same work and are
//! measured the same way.
//!
//! The package benches/arroyo includes this directory by its path, so it does not depend on the
//! workspace.

pub(crate) mod clock;
pub(crate) mod job;
pub(crate) mod meter;
pub(crate) mod rows;
