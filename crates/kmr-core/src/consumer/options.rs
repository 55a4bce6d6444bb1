//! The settings of a consumer, and the checks that need no connection.

use std::time::Duration;

use crate::circuit_breaker::CircuitBreaker;
use crate::client::subscription_matches;
use crate::config::{ClientConfig, ResetPolicy, StartAt};
use crate::error::Error;
use crate::graph::commit::leaving::COMMIT_RESPONSE_TIMEOUT;
use crate::graph::dead_letters::reread;
use crate::graph::observe::watchdog::WatchdogThresholds;
use crate::graph::options::GraphOptions;
use crate::graph::pipeline::Pipeline;
use crate::metrics::Recorder;
use crate::reducer::PartialBatch;
use crate::watchdog::Watchdog;

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) topics: Vec<String>,
    pub(super) config: ClientConfig,
    pub(super) memory_budget: usize,
    pub(super) start_at: Option<StartAt>,
    pub(super) reset: Option<ResetPolicy>,
    pub(super) without_group: bool,
    pub(super) watchdog: Watchdog,
    #[cfg(feature = "metrics")]
    pub(super) metrics: bool,
    /// Its watchdog thresholds are set by [`Options::graph`].
    pub(super) graph: GraphOptions,
}

/// librdkafka may use this fraction of the memory budget, as a divisor.
const PREFETCH_DIVISOR: usize = 4;
/// Lowest budget. Below it, one fetch alone is more than the graph may hold.
const LEAST_BUDGET: usize = 4 << 20;
/// Time for a heartbeat and the answer to a rebalance, besides the drain.
const HEARTBEAT: Duration = Duration::from_secs(3);

impl Default for Options {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            config: ClientConfig::new(),
            memory_budget: 64 << 20,
            start_at: None,
            reset: None,
            without_group: false,
            watchdog: Watchdog::default(),
            #[cfg(feature = "metrics")]
            metrics: true,
            graph: GraphOptions::default(),
        }
    }
}

impl Options {
    /// The part of the memory budget that librdkafka may use.
    pub(super) fn prefetch_bytes(&self) -> usize {
        self.memory_budget / PREFETCH_DIVISOR
    }

    /// Records the metrics of the consumer, if the feature and the setting are on.
    pub(super) fn recorder(&self) -> Recorder {
        #[cfg(feature = "metrics")]
        if self.metrics {
            return Recorder::recording();
        }
        Recorder::default()
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
        if let Some(problem) = self.graph.circuit_breaker.as_ref().and_then(CircuitBreaker::problem) {
            return Err(Error::Config(problem.to_owned()));
        }
        if let Some(restart_after) = self.watchdog.restart_after
            && restart_after < self.graph.drain_timeout
        {
            return Err(Error::Config(format!(
                "watchdog: restart_after is {restart_after:?}, which is below drain_timeout ({:?}): kmr drains \
                 a partition before it restarts it; raise restart_after, or switch it off with None",
                self.graph.drain_timeout
            )));
        }
        self.check_dead_letter_topics(pipeline)?;
        if self.graph.exactly_once {
            self.check_exactly_once(pipeline)?;
        }
        self.check_times(pipeline)
    }

    /// A dead letter that is read again fails again: the topic would fill itself.
    ///
    /// In a KIP-848 group the broker matches patterns, by the rules of RE2/J and with the whole
    /// name. So only names are compared there. The sink itself stops at a dead letter that comes
    /// back.
    fn check_dead_letter_topics(&self, pipeline: &Pipeline) -> Result<(), Error> {
        let brokers = self.config.get("bootstrap.servers").unwrap_or_default();
        let targets = pipeline.errors.iter().flat_map(|(info, _)| &info.targets);
        for target in targets.filter(|target| target.shares_broker(brokers)) {
            let name = target.topic();
            let compared = |topic: &&String| !(topic.starts_with('^') && self.config.is_next_generation());
            let mut topics = self.topics.iter().filter(compared);
            let Some(topic) = topics.find(|topic| subscription_matches(topic, name)) else { continue };
            let how = if topic == name { "is one of its topics" } else { "matches its pattern" };
            return Err(Error::Config(format!(
                "reduce_err writes to topic {name:?}, which the consumer reads: it {how} {topic:?}; dead letters would \
                 fail and be written again without end; write them to another topic"
            )));
        }
        Ok(())
    }

    /// Settings that exclude exactly-once delivery, whatever the sink (E10 among them).
    fn check_exactly_once(&self, pipeline: &Pipeline) -> Result<(), Error> {
        let problem = if self.without_group {
            "without_group commits nothing, so a plan cannot be stored; join a group"
        } else if self.graph.out_of_range != ResetPolicy::Fail {
            "out_of_range_policy may skip records of a plan; leave it at ResetPolicy::Fail"
        } else if pipeline.reduces.len() != 1 {
            "the strategy has more than one reduce, and only a reduce after map stages alone can rebuild a block; \
             write the input of the second into another topic, for a consumer of its own"
        } else if pipeline.reduces.iter().any(|info| info.options.partial_batch != PartialBatch::Flush) {
            "partial_batch has to be PartialBatch::Flush: a batch that is discarded is not delivered exactly once"
        } else {
            return Ok(());
        };
        Err(Error::Config(format!("exactly_once: {problem}")))
    }

    /// The graph's options. Rows may wait in batches for the `max_age` of their reducers, so no
    /// partition is late before that.
    pub(super) fn graph(&self, pipeline: &Pipeline) -> GraphOptions {
        let stages = pipeline.reduces.iter().chain(pipeline.errors.iter().map(|(info, _)| info));
        let batching: Duration =
            stages.map(|info| info.options.max_age).fold(Duration::ZERO, Duration::saturating_add);
        let mut graph = self.graph.clone();
        graph.thresholds = WatchdogThresholds {
            warn_after: self.watchdog.warn_after.saturating_add(batching),
            restart_after: self.watchdog.restart_after.map(|age| age.saturating_add(batching)),
        };
        graph
    }

    /// Answered in time (R3): all work that may be in progress when a partition is revoked ends
    /// within the drain timeout. That timeout ends before the group removes the member.
    fn check_times(&self, pipeline: &Pipeline) -> Result<(), Error> {
        let stages = pipeline.reduces.iter().chain(pipeline.errors.iter().map(|(info, _)| info));
        let mut longest_drain = COMMIT_RESPONSE_TIMEOUT.saturating_add(HEARTBEAT);
        for info in stages {
            if let Some(problem) = info.options.problem() {
                return Err(Error::Config(format!("{}: {problem}", info.stage)));
            }
            // One attempt of the batch in delivery, one of the last batch.
            longest_drain = longest_drain.saturating_add(info.options.attempt_timeout.saturating_mul(2));
        }
        if pipeline.errors.is_some() {
            // Records whose rows were rejected are read again, for both batches.
            longest_drain = longest_drain.saturating_add(reread::limit(self.graph.drain_timeout) * 2);
        }
        if longest_drain >= self.graph.drain_timeout {
            return Err(Error::Config(format!(
                "drain_timeout is {:?}, but two attempts of every reduce, reading rejected records again, \
                 a commit and a heartbeat may take {longest_drain:?}; raise drain_timeout, or lower the \
                 attempt_timeout of the reducers",
                self.graph.drain_timeout
            )));
        }
        let max_poll = self.config.max_poll_interval()?;
        if self.graph.drain_timeout >= max_poll {
            return Err(Error::Config(format!(
                "drain_timeout is {:?}, which is not below max.poll.interval.ms ({max_poll:?}): the group would \
                 remove the member while it drains; lower the one or raise the other",
                self.graph.drain_timeout
            )));
        }
        Ok(())
    }
}
