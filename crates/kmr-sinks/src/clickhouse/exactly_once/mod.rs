//! Exactly-once mode: what it requires of the tables, and how a planned block is inserted.
//!
//! Rules of kmr's design, "Exactly once":
//! * E4: a block is inserted under its token without its excluded rows ([`block`], [`probe`]).
//! * E5: a block is one block on the server, with every insert that sends it.
//! * E6: deduplication windows count the blocks of all writers, and a deduplicated retry does not
//!   extend them. Those of replicated tables also expire. A plan older than half a window is not
//!   trusted ([`windows`], [`doubt`]).

pub(super) mod block;
pub(super) mod doubt;
pub(super) mod probe;
pub(super) mod windows;

use std::sync::Arc;

use self::windows::Window;

/// What exactly-once mode needs to know about a batch.
pub(crate) struct PlannedRows {
    pub(crate) hash: u128,
    /// The windows of the table, and of the tables that its views write to.
    pub(crate) windows: Arc<[Window]>,
}
