//! A batch: encoded rows, delivery, and the bisection that finds rejected rows.

pub(super) mod bisect;
pub(super) mod by_partition;
pub(super) mod delivery;
pub(super) mod destination;
pub(super) mod encoded_batch;
pub(super) mod exception;
pub(super) mod limits;
pub(super) mod open_batch;
pub(super) mod row_ends;
pub(super) mod rows;
