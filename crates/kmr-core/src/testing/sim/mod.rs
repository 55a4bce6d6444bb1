//! A simulated Kafka for strategies: thousands of runs in seconds, with faults from a seed and an
//! invariant checker.
//!
//! [`Simulation`] runs the real consumer with all its tasks, as
//! [`start_consumer`](crate::start_consumer) does, on a simulated cluster and in virtual time. A
//! seed decides everything that happens in a run:
//!
//! * Processes join, leave, fail and are killed.
//! * The group rebalances: eager, cooperative or KIP-848. Assignments can be lost.
//! * A client receives no events of its group any more, and fetches on. A static member is removed
//!   and joins again without a notice.
//! * Offsets have gaps. Partitions are added, and topics are deleted. A client stops fetching a
//!   partition without an error.
//! * Commits are fenced, delayed or slow. In exactly-once mode some come late, after newer ones.
//! * Sinks are slow, stall, fail, or write and then fail.
//! * Some consumers run up to the end of each log, or up to a time. Some groups start at a time.
//!
//! The invariant checker checks each run:
//!
//! * Every record is delivered, skipped or a dead letter, and is committed at the end.
//! * No commit is ever above an unfinished record.
//! * No lost or released partition is committed. One commit is outstanding at a time. Every commit
//!   carries the metadata in force.
//! * Kept partitions continue during a rebalance. Fetched records and rows in sinks stay within the
//!   memory budget. Nothing fails without a reason. Every run ends.
//! * A bounded run finishes and commits every record below its ends, delivers none after them, and
//!   ends. A chosen starting position is committed.
//! * Without faults there are no duplicates.
//! * The same seed gives exactly the same run.
//!
//! A run does not test librdkafka, nor the code of real sinks.
//!
//! # Examples
//! ```
//! use kmr_core::testing::NewRecord;
//! use kmr_core::testing::sim::{Fate, RowId, Simulation};
//! use kmr_core::{BoxError, Record, Strategy};
//!
//! #[derive(Clone)]
//! struct Order {
//!     id: RowId,
//!     amount: u32,
//! }
//!
//! fn parse(record: &Record<'_>) -> Result<Order, BoxError> {
//!     let amount = std::str::from_utf8(record.payload().ok_or("no payload")?)?.parse()?;
//!     Ok(Order { id: RowId::of(record, 0), amount })
//! }
//!
//! let simulation = Simulation::new(|sinks| {
//!     Strategy::new()
//!         .map(parse)
//!         .reduce(sinks.sink("orders", |order: &Order| order.id.clone()))
//!         .reduce_err(sinks.dead_letters())
//! })
//! .records(|chance| {
//!     let record = NewRecord::default();
//!     if chance % 10 == 0 { record.with_payload("broken") } else { record.with_payload((chance % 1000).to_string()) }
//! })
//! .fate(|record| match parse(record) {
//!     Ok(_) => Fate::Rows(1),
//!     Err(_) => Fate::DeadLetter,
//! });
//! let summary = simulation.check(0..20).unwrap_or_else(|failure| panic!("{failure}"));
//! assert_eq!(summary.seeds, 20);
//! ```

mod actions;
mod blocks;
mod bounds;
mod cluster;
mod commits;
mod dead_letters;
mod drive;
mod faults;
mod fetching;
mod group;
mod identify;
mod log;
mod member;
mod memory;
mod oracle;
mod process;
mod rng;
mod schedule;
mod search;
mod sinks;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use dead_letters::SimDeadLetters;
pub use oracle::Violation;
pub use sinks::{SimSink, Sinks};

use super::NewRecord;
use crate::graph::pipeline::Pipeline;
use crate::record::{Record, TopicPartition};
use crate::strategy::IntoPipeline;

/// Identifies a row: its record, and its number within the record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowId {
    partition: TopicPartition,
    offset: i64,
    number: usize,
}

impl RowId {
    /// The row `number` of a record, counted from 0.
    pub fn of(record: &Record<'_>, number: usize) -> Self {
        Self {
            partition: TopicPartition::new(record.topic.clone(), record.partition()),
            offset: record.offset(),
            number,
        }
    }
}

/// The required outcome of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// The record becomes that many rows in each sink.
    Rows(usize),
    /// The record becomes that many rows in each sink. A sink may reject the last row. Then that
    /// row becomes a dead letter, and the other rows are stored.
    Rejectable(usize),
    /// The record becomes a dead letter.
    DeadLetter,
    /// The record is filtered out.
    Skipped,
}

type MakePipeline = dyn Fn(&Sinks) -> Pipeline + Send + Sync;
type MakeRecord = dyn Fn(u64) -> NewRecord + Send + Sync;
type FateOf = dyn Fn(&Record<'_>) -> Fate + Send + Sync;

/// A strategy to test on a simulated cluster. See the [module](self).
#[derive(Clone)]
#[must_use = "a simulation does nothing until it is run"]
pub struct Simulation {
    pipeline: Arc<MakePipeline>,
    record: Arc<MakeRecord>,
    fate: Arc<FateOf>,
    exactly_once: bool,
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Simulation")
    }
}

impl Simulation {
    /// The drain deadline of simulated consumers. The attempts of a strategy's sinks must fit into
    /// it, as with [`drain_timeout`](crate::ConsumerBuilder::drain_timeout).
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

    /// Simulates a strategy. Each process of a run builds the strategy anew, with sinks of the run.
    ///
    /// By default, the payload of a record is a random number, and each record must become one row
    /// in each sink. [`records`](Self::records) and [`fate`](Self::fate) change that.
    pub fn new<S: IntoPipeline>(strategy: impl Fn(&Sinks) -> S + Send + Sync + 'static) -> Self {
        Self {
            pipeline: Arc::new(move |sinks| strategy(sinks).into_pipeline()),
            record: Arc::new(|chance| NewRecord::default().with_payload(chance.to_string())),
            fate: Arc::new(|_| Fate::Rows(1)),
            exactly_once: false,
        }
    }

    /// Sets how records are made from random numbers. The run chooses their partitions.
    pub fn records(mut self, make: impl Fn(u64) -> NewRecord + Send + Sync + 'static) -> Self {
        self.record = Arc::new(make);
        self
    }

    /// Sets the required outcome of a record.
    pub fn fate(mut self, fate: impl Fn(&Record<'_>) -> Fate + Send + Sync + 'static) -> Self {
        self.fate = Arc::new(fate);
        self
    }

    /// Runs the consumers in exactly-once mode
    /// ([`ConsumerBuilder::exactly_once`](crate::ConsumerBuilder::exactly_once)).
    ///
    /// The sinks know the deduplication tokens of inserted blocks. Now and then a sink completes an
    /// insert although its sender is gone. Foreign tools move offsets. Sometimes a sink accepts
    /// what it rejected before, as if its table was altered. No row may ever be stored twice.
    pub fn exactly_once(mut self) -> Self {
        self.exactly_once = true;
        self
    }

    /// Runs each seed twice, on all cores.
    ///
    /// # Errors
    /// The first seed found whose run breaks a rule, with the shortest schedule found that still
    /// breaks it.
    pub fn check<I>(&self, seeds: I) -> Result<Summary, Box<Failure>>
    where
        I: IntoIterator<Item = u64, IntoIter: Send>,
    {
        search::check(self, seeds.into_iter(), None)
    }

    /// Does the same as [`check`](Self::check), with the seeds from `first` on, for some time.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_for(&self, first: u64, time: Duration) -> Result<Summary, Box<Failure>> {
        search::check(self, first.., Some(time))
    }

    fn strategy(&self, sinks: &Sinks) -> Pipeline {
        (self.pipeline)(sinks)
    }

    fn make_record(&self, chance: u64) -> NewRecord {
        (self.record)(chance)
    }

    fn fate_of(&self, record: &Record<'_>) -> Fate {
        (self.fate)(record)
    }
}

/// The totals of many runs.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// Seeds. Each was run twice.
    pub seeds: u64,
    /// Produced records.
    pub records: u64,
    /// Rebalances that members were notified of.
    pub rebalances: u64,
    /// Committed offsets.
    pub commits: u64,
    /// Members that joined.
    pub members: u64,
    /// Wall-clock time.
    pub elapsed: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, records, rebalances, commits, members, elapsed } = self;
        let rate = *seeds as f64 / elapsed.as_secs_f64().max(0.001);
        write!(
            f,
            "{seeds} seeds, each run twice, in {:.1} s ({rate:.0} a second): {records} records, {members} members, \
             {rebalances} rebalances, {commits} offsets committed, no rule broken",
            elapsed.as_secs_f64()
        )
    }
}

/// A seed whose run broke a rule.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The seed. The same simulation fails again with it.
    pub seed: u64,
    /// The broken rule, and what happened.
    pub violation: Violation,
    /// The schedule of the run, without the steps that the failure does not need.
    pub schedule: String,
    /// All events, in order.
    pub events: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.violation)?;
        write!(f, "{}", self.schedule)?;
        for event in &self.events {
            writeln!(f, "{event}")?;
        }
        writeln!(f, "{}", self.violation)?;
        write!(f, "reproduce with: check([{}])", self.seed)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests;
