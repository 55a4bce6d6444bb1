//! Claims on records, and the rows that carry them until both are finished.
//!
//! A [`claim`] covers observed records. Rows of one record can go different ways, and then each way
//! gets a [`claim_part`]. A [`hold`] is either of the two. [`tracked_rows`] are rows with the holds
//! on their records.

pub(crate) mod claim;
pub(crate) mod claim_part;
pub(crate) mod hold;
pub(crate) mod tracked_rows;
