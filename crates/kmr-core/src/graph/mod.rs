//! The running graph, in the order in which a record meets it.
//!
//! `intake` takes records from the member and charges the `budget`; `map` runs the map stages, one task a partition;
//! `reduce` batches and delivers, one task a reduce stage, with `batch` (when is a batch due), `flight` (attempts) and
//! `downstream` (what follows); `blocks` takes its place in exactly-once mode, with `plans` as the committer's part of it; `dead_letters` is the way to `reduce_err`, `reread` gets records back for it, `breaker` counts what takes it; `claim` and `piece` tie rows to their records;
//! `pulse` says what a partition's task is doing; `turn` lets records go through all of them on one thread;
//! `committer` keeps a `tracker` per partition and commits; `coordinator` and `rebalance` direct all of them; `assembly`
//! puts the tasks together.

pub(crate) mod assignment;
pub(crate) mod build;
pub(crate) mod claims;
pub(crate) mod commit;
pub(crate) mod context;
pub(crate) mod control;
pub(crate) mod coordinator;
pub(crate) mod dead_letters;
pub(crate) mod exactly_once;
pub(crate) mod fetch;
pub(crate) mod map;
pub(crate) mod memory;
pub(crate) mod observe;
pub(crate) mod options;
pub(crate) mod pipeline;
pub(crate) mod reduce;
pub(crate) mod run;
