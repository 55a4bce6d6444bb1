//! A simulated Kafka for strategies: thousands of runs in seconds, each with faults drawn from a
//! seed, and a judge.
//!
//! [`Simulation`] runs the real consumer, every task of it, as
//! [`start_consumer`](crate::start_consumer) does, on a simulated cluster and in virtual time. A
//! seed decides everything: how many processes join, leave, fail and are killed; how the group
//! rebalances (eager, cooperative, KIP-848; also assignments that are lost); gaps between offsets;
//! partitions that are added, topics that are deleted; commits that are fenced, put off or slow;
//! sinks that are slow, stall, fail, or write and then fail. The judge looks at each run:
//!
//! * every record is delivered, skipped, or in the dead letters, and committed at the end;
//! * at no moment is a commit above a record that is not finished; a lost partition is not
//!   committed, nor one that was handed back; one commit is outstanding; every commit carries the
//!   metadata in force;
//! * kept partitions go on during a rebalance; bytes stay within the budget; nothing fails without
//!   a reason; every run ends;
//! * where nothing goes wrong, nothing comes twice;
//! * the same seed gives the same run, to the letter.
//!
//! What a run cannot show is what lies behind the seam: librdkafka, and the sinks' own code.
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
mod cluster;
mod drive;
mod group;
mod log;
mod member;
mod oracle;
mod process;
mod rng;
mod schedule;
mod search;
mod sinks;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use oracle::Violation;
pub use sinks::{SimDeadLetters, SimSink, Sinks};

use super::NewRecord;
use crate::graph::pipeline::Pipeline;
use crate::record::{Record, TopicPartition};
use crate::strategy::IntoPipeline;

/// Which row of which record a row is.
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

/// What is to become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// That many rows, in each sink.
    Rows(usize),
    /// That many rows, in each sink, the last of which a sink may refuse: then it is a dead letter,
    /// and the others are in all the same.
    Rejectable(usize),
    /// A dead letter.
    DeadLetter,
    /// Nothing: it is filtered out.
    Skipped,
}

type MakePipeline = dyn Fn(&Sinks) -> Pipeline + Send + Sync;
type MakeRecord = dyn Fn(u64) -> NewRecord + Send + Sync;
type FateOf = dyn Fn(&Record<'_>) -> Fate + Send + Sync;

/// A strategy to be tried out on a simulated cluster; see the [module](self).
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
    /// The drain deadline of simulated consumers. Attempts of a strategy's sinks have to fit in, as
    /// in [`drain_timeout`](crate::ConsumerBuilder::drain_timeout).
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

    /// Simulates a strategy, which is made anew for each process of a run, with sinks of the run.
    ///
    /// Records have a random number as their payload unless [`records`](Self::records) says
    /// otherwise, and have to become one row in each sink unless [`fate`](Self::fate) does.
    pub fn new<S: IntoPipeline>(strategy: impl Fn(&Sinks) -> S + Send + Sync + 'static) -> Self {
        Self {
            pipeline: Arc::new(move |sinks| strategy(sinks).into_pipeline()),
            record: Arc::new(|chance| NewRecord::default().with_payload(chance.to_string())),
            fate: Arc::new(|_| Fate::Rows(1)),
            exactly_once: false,
        }
    }

    /// Makes records from random numbers. The partition is chosen by the run.
    pub fn records(mut self, make: impl Fn(u64) -> NewRecord + Send + Sync + 'static) -> Self {
        self.record = Arc::new(make);
        self
    }

    /// Says what is to become of a record.
    pub fn fate(mut self, fate: impl Fn(&Record<'_>) -> Fate + Send + Sync + 'static) -> Self {
        self.fate = Arc::new(fate);
        self
    }

    /// Runs the consumers in exactly-once mode
    /// ([`ConsumerBuilder::exactly_once`](crate::ConsumerBuilder::exactly_once)). The sinks know
    /// the tokens of what was inserted; what was sent is stored although its sender is gone, now
    /// and then; tools that are not kmr's move offsets. No row may ever come twice. What a sink
    /// refuses it takes now and then: somebody has changed its table.
    pub fn exactly_once(mut self) -> Self {
        self.exactly_once = true;
        self
    }

    /// Runs each seed twice, on all cores.
    ///
    /// # Errors
    /// The first seed found whose run breaks a rule, with its schedule made as short as it can be.
    pub fn check<I>(&self, seeds: I) -> Result<Summary, Box<Failure>>
    where
        I: IntoIterator<Item = u64, IntoIter: Send>,
    {
        search::check(self, seeds.into_iter(), None)
    }

    /// The same with the seeds from `first` on, for some time.
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

/// What many runs came to.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// Seeds; each was run twice.
    pub seeds: u64,
    /// Records that were produced.
    pub records: u64,
    /// Rebalances that members were told of.
    pub rebalances: u64,
    /// Offsets that were committed.
    pub commits: u64,
    /// Members that joined.
    pub members: u64,
    /// Real time.
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
    /// The seed: the same simulation fails again with it.
    pub seed: u64,
    /// The rule, and how it was broken.
    pub violation: Violation,
    /// What happened in the run, without what the failure does not need.
    pub schedule: String,
    /// Everything that happened, in order.
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
        write!(f, "again with: check([{}])", self.seed)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests;
