//! What a consumer is told, and the checks that need no connection.

use std::time::Duration;

use crate::circuit_breaker::CircuitBreaker;
use crate::config::{ClientConfig, ResetPolicy, StartAt};
use crate::error::Error;
use crate::graph::commit::leaving::COMMIT_RESPONSE_TIMEOUT;
use crate::graph::dead_letters::reread;
use crate::graph::observe::watchdog::WatchdogThresholds;
use crate::graph::options::GraphOptions;
use crate::graph::pipeline::Pipeline;
use crate::reducer::PartialBatch;

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) topics: Vec<String>,
    pub(super) config: ClientConfig,
    pub(super) memory_budget: usize,
    pub(super) connect_timeout: Duration,
    pub(super) start_at: Option<StartAt>,
    pub(super) reset: Option<ResetPolicy>,
    pub(super) without_group: bool,
    pub(super) exit_when_stuck: bool,
    pub(super) graph: GraphOptions,
}

/// One part in so many of the byte budget is librdkafka's.
const PREFETCH_SHARE: usize = 4;
/// Least budget: below it, one fetch alone is more than the graph may hold.
const LEAST_BUDGET: usize = 4 << 20;
/// Time for a heartbeat and the answer to a rebalance, beside the drain.
const HEARTBEAT: Duration = Duration::from_secs(3);

impl Default for Options {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            config: ClientConfig::new(),
            memory_budget: 64 << 20,
            connect_timeout: Duration::from_secs(30),
            start_at: None,
            reset: None,
            without_group: false,
            exit_when_stuck: false,
            graph: GraphOptions::default(),
        }
    }
}

impl Options {
    /// Bytes of the budget that are librdkafka's.
    pub(super) fn prefetch_bytes(&self) -> usize {
        self.memory_budget / PREFETCH_SHARE
    }

    pub(super) fn check(&self, pipeline: &Pipeline) -> Result<(), Error> {
        if self.topics.is_empty() {
            return Err(Error::Config("no topics; name at least one".to_owned()));
        }
        self.config.required("bootstrap.servers")?;
        if !self.without_group {
            self.config.required("group.id")?;
        } else if let Some(pattern) = self.topics.iter().find(|topic| topic.starts_with('^')) {
            let text = format!("topic {pattern:?} is a pattern; without_group takes names of topics");
            return Err(Error::Config(text));
        }
        if self.memory_budget < LEAST_BUDGET {
            let text = format!(
                "memory_budget is {} bytes; it has to be at least {LEAST_BUDGET}",
                self.memory_budget
            );
            return Err(Error::Config(text));
        }
        if self.graph.commit_interval.is_zero() {
            return Err(Error::Config("commit_interval is 0; give it at least a millisecond".to_owned()));
        }
        if let Some(problem) = self.graph.breaker.as_ref().and_then(CircuitBreaker::problem) {
            return Err(Error::Config(problem.to_owned()));
        }
        if let Some(heal_after) = self.graph.thresholds.heal_after
            && heal_after < self.graph.drain_timeout
        {
            return Err(Error::Config(format!(
                "heal_after is {heal_after:?}, which is below drain_timeout ({:?}): a partition that is to be healed is drained \
                 first; raise it, or switch it off",
                self.graph.drain_timeout
            )));
        }
        if self.graph.exactly_once {
            self.check_exactly_once(pipeline)?;
        }
        self.check_times(pipeline)
    }

    /// E10, and what else cannot be delivered exactly once whatever the sink.
    fn check_exactly_once(&self, pipeline: &Pipeline) -> Result<(), Error> {
        let problem = if self.without_group {
            "without_group commits nothing, so there is no place for a plan; join a group"
        } else if self.graph.out_of_range != ResetPolicy::Fail {
            "out_of_range may skip records of a plan; leave it at ResetPolicy::Fail"
        } else if pipeline.reduces.len() != 1 {
            "the strategy has more than one reduce, and only one that map stages alone feed can make the same block again; write \
             the second into another topic, for a consumer of its own"
        } else if pipeline.reduces.iter().any(|info| info.options.partial_batch != PartialBatch::Flush) {
            "partial_batch has to be PartialBatch::Flush: what is dropped on purpose is not delivered exactly once"
        } else {
            return Ok(());
        };
        Err(Error::Config(format!("exactly_once: {problem}")))
    }

    /// What the graph is told. Rows may wait in batches for as long as their reducers say: nothing is late before that.
    pub(super) fn graph(&self, pipeline: &Pipeline) -> GraphOptions {
        let stages = pipeline.reduces.iter().chain(pipeline.errors.iter().map(|(info, _)| info));
        let batching: Duration =
            stages.map(|info| info.options.max_age).fold(Duration::ZERO, Duration::saturating_add);
        let mut graph = self.graph.clone();
        let WatchdogThresholds { warn_after, heal_after } = graph.thresholds;
        graph.thresholds = WatchdogThresholds {
            warn_after: warn_after.saturating_add(batching),
            heal_after: heal_after.map(|heal_after| heal_after.saturating_add(batching)),
        };
        graph
    }

    /// R3: whatever may be under way when a partition is revoked ends before the drain deadline, and that ends before the
    /// group gives the member up.
    fn check_times(&self, pipeline: &Pipeline) -> Result<(), Error> {
        let stages = pipeline.reduces.iter().chain(pipeline.errors.iter().map(|(info, _)| info));
        let mut chain = COMMIT_RESPONSE_TIMEOUT.saturating_add(HEARTBEAT);
        for info in stages {
            if let Some(problem) = info.options.problem() {
                return Err(Error::Config(format!("{}: {problem}", info.stage)));
            }
            // One attempt of what is in flight, one of the last batch.
            chain = chain.saturating_add(info.options.attempt_timeout.saturating_mul(2));
        }
        if pipeline.errors.is_some() {
            // Records whose rows were rejected are read again, for the one batch and for the other.
            chain = chain.saturating_add(reread::limit(self.graph.drain_timeout) * 2);
        }
        if chain >= self.graph.drain_timeout {
            return Err(Error::Config(format!(
                "drain_timeout is {:?}, but two attempts of every reduce, reading rejected records again, a commit and a heartbeat may \
                 take {chain:?}; raise drain_timeout or lower the attempt_timeout of the reducers",
                self.graph.drain_timeout
            )));
        }
        let max_poll = self.config.max_poll_interval()?;
        if self.graph.drain_timeout >= max_poll {
            return Err(Error::Config(format!(
                "drain_timeout is {:?}, which is not below max.poll.interval.ms ({max_poll:?}): the group would give the \
                 member up while it drains; lower the one or raise the other",
                self.graph.drain_timeout
            )));
        }
        Ok(())
    }
}
