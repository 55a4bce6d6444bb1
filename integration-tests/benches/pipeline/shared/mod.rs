//! What every contender shares, so that all of them do the same work and are measured the same way: the job, the rows, the
//! meter. The package benches/arroyo includes this directory by its path, so it depends on nothing of the workspace.

pub(crate) mod clock;
pub(crate) mod job;
pub(crate) mod meter;
pub(crate) mod rows;
