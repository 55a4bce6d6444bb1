//! Exactly-once mode: reduce stages that deliver planned blocks in place of batches.
//!
//! Rules E1 to E11 and their proofs: docs/design/exactly-once.md. The mode lives in three places:
//!
//! * Here: `task` builds blocks of one partition each and delivers them in their `lane`.
//!   `planned_block` is a block on its way to the sink, whose rows may be rejected.
//! * `commit/plan_state`, the committer's side: which plan is open, and what each commit carries.
//! * `commit_metadata` of the crate: the text of plans and idle markers.

mod lane;
mod planned_block;
pub(crate) mod task;
