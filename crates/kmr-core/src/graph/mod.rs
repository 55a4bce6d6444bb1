//! The running graph: the tasks that carry records from Kafka to the sinks, and commit.
//!
//! The folders in which a record moves:
//! - `fetch` polls the fetch queue, charges the memory budget and hands records to map tasks.
//! - `memory` owns the memory budget and the fair share of each partition.
//! - `map` runs the map stages, one task per partition.
//! - `claims` ties rows and dead letters to the records that they come from.
//! - `reduce` collects rows into batches and delivers them, one task per reduce stage.
//! - `exactly_once` replaces the reduce task in exactly-once mode and delivers planned blocks.
//! - `dead_letters` sends failed records to `reduce_err` and measures the failure rate.
//! - `commit` keeps the ledger and the watermarks, and commits.
//!
//! The folders that direct it:
//! - `coordinator` answers rebalances, starts and stops tasks, and ends the consumer.
//! - `assignment` identifies assignments and publishes which of them are alive.
//! - `observe` tracks what each partition waits for, and finds partitions that make no progress.
//!
//! The files that assemble it:
//! - `pipeline` is a complete strategy. `build` starts its stages with their `context`.
//! - `run` starts a consumer with its `options`, and `control` carries requests to it.
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
