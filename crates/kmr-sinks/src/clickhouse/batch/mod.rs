//! A batch: its encoded rows, their delivery, and the bisection that finds rejected rows.

pub(super) mod bisect;
mod by_partition;
pub(super) mod delivery;
pub(super) mod destination;
pub(super) mod encoded_batch;
pub(super) mod facts;
pub(super) mod limits;
pub(super) mod open_batch;
pub(super) mod progress;
pub(super) mod receipt;
pub(super) mod rejection;
pub(super) mod repetition;
mod row_ends;
mod row_hash;
pub(super) mod row_type;
pub(super) mod rows;
pub(super) mod token;
