//! The headers that a dead letter adds to those of its record, and what becomes of one that is too
//! large.

use std::sync::Arc;

/// What becomes of a dead letter that is larger than its topic allows, even with shortened headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LargeDeadLetter {
    /// It is sent without the record's payload; if that is not enough, also without its key and
    /// headers. The header `kmr.missing` has the reason, and the record can be read at the position
    /// in the headers for as long as its topic holds it. The default.
    #[default]
    WithoutContent,
    /// The consumer stops.
    Stop,
}

/// The headers that a dead letter adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddedHeaders {
    /// Index of the first one. Those before it are the record's.
    pub(super) first: usize,
    pub(super) prefix: Arc<str>,
    pub(super) large: LargeDeadLetter,
}
