//! The builder of a consumer: all settings, with their defaults and limits.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::handle::ConsumerHandle;
use super::options::Options;
use super::run::{Consumer, Shutdown};
use crate::circuit_breaker::CircuitBreaker;
use crate::config::{ClientConfig, ResetPolicy, StartAt, Until};
use crate::error::Error;
use crate::graph::control::controls;
use crate::graph::memory::budget::Budget;
use crate::graph::pipeline::Pipeline;
use crate::listeners::{CommitEvent, RebalanceEvent};
use crate::stats::Counters;
use crate::strategy::IntoPipeline;
use crate::watchdog::Watchdog;

/// The settings of a consumer: see [`Consumer::builder`].
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct ConsumerBuilder<P = ()> {
    options: Options,
    shutdown: Shutdown,
    pipeline: P,
}

impl<P> ConsumerBuilder<P> {
    /// The topics to consume. A name that starts with `^` is a pattern: a POSIX extended regular
    /// expression.
    ///
    /// In a KIP-848 group (`group.protocol=consumer`) the broker matches patterns, by the rules of
    /// RE2/J and with the whole name. There `^orders` matches the topic `orders` alone. `^orders.*`
    /// matches all topics that start with it.
    pub fn topics<T>(mut self, topics: T) -> Self
    where
        T: IntoIterator,
        T::Item: Into<String>,
    {
        self.options.topics = topics.into_iter().map(Into::into).collect();
        self
    }

    /// The Kafka client's settings.
    pub fn config(mut self, config: ClientConfig) -> Self {
        self.options.config = config;
        self
    }

    /// The stages that process the records.
    pub fn strategy<S: IntoPipeline>(self, strategy: S) -> ConsumerBuilder<Pipeline> {
        let ConsumerBuilder { options, shutdown, .. } = self;
        ConsumerBuilder { options, shutdown, pipeline: strategy.into_pipeline() }
    }

    /// Memory for records and rows from fetch to acknowledgement, in bytes. Default 64 MiB, at
    /// least 4 MiB. A quarter of it is librdkafka's prefetch. A small budget makes small batches.
    /// One record always passes, whatever its size.
    ///
    /// The budget counts records as they are in memory, with keys and headers, not as they are
    /// compressed in the log. kmr adapts `fetch.max.bytes` and `queued.min.messages` to what
    /// fetched records take, so that one response unpacks to a small part of the budget. A response
    /// holds at least one batch, which librdkafka unpacks as a whole. If you set `fetch.max.bytes`,
    /// kmr does not adapt it, and a response may unpack to that many bytes times the compression
    /// ratio.
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.options.memory_budget = bytes;
        self
    }

    /// Maximum time to drain partitions before they are released, at a rebalance and at shutdown.
    /// Default 180 s. Records that are unfinished after it stay uncommitted.
    ///
    /// It must be longer than the deliveries can take, and shorter than `max.poll.interval.ms`.
    /// [`build`](ConsumerBuilder::build) checks both.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.options.graph.drain_timeout = timeout;
        self
    }

    /// How often finished offsets are committed. Default 1 s. A longer interval saves the group's
    /// coordinator work, and more records are read again after a crash.
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.options.graph.commit_interval = interval;
        self
    }

    /// Maximum time to keep trying to replace a failed Kafka client. Default 10 min. A client fails
    /// if a fatal error removes it from its group, for example, or if it cannot answer a rebalance.
    ///
    /// Nothing of the failed client is committed. Its partitions are read again from their
    /// committed offsets. Attempts start after 1 s and wait up to 30 s. After the timeout the
    /// consumer ends with the last error. It ends at once where a new client cannot help
    /// (permissions, a fenced `group.instance.id`). A client that lives for less than a minute does
    /// not end a series of attempts.
    pub fn reconnect_timeout(mut self, timeout: Duration) -> Self {
        self.options.graph.reconnect_timeout = timeout;
        self
    }

    /// Maximum time to try an unreachable broker at start. Default 30 s.
    ///
    /// One leader of each topic has to respond until then, and the group coordinator. Later, and
    /// for all other leaders, it is the time until a leader that does not respond is logged. The
    /// consumer goes on with the partitions of the others. Only a bounded run
    /// ([`until`](Self::until)) ends with an error, after
    /// [`reconnect_timeout`](Self::reconnect_timeout).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.graph.connect_timeout = timeout;
        self
    }

    /// The starting position of partitions without a committed offset. Default:
    /// [`offset_reset_policy`](Self::offset_reset_policy), which also decides for partitions that
    /// `start_at` does not name.
    pub fn start_at(mut self, start: StartAt) -> Self {
        self.options.start_at = Some(start);
        self
    }

    /// The starting position of a partition without a committed offset. Default
    /// [`ResetPolicy::Earliest`].
    pub fn offset_reset_policy(mut self, policy: ResetPolicy) -> Self {
        self.options.reset = Some(policy);
        self
    }

    /// What happens when the offset to read next is no longer in the log, because retention was
    /// faster than the consumer or the topic was deleted and created again. Records are lost then.
    ///
    /// Default [`ResetPolicy::Fail`]: the consumer stops with an error that names the partition,
    /// the offset and the bounds of the log. The other policies continue at the lowest offset or
    /// after the last record, with a warning that names both offsets.
    pub fn out_of_range_policy(mut self, policy: ResetPolicy) -> Self {
        self.options.graph.out_of_range = policy;
        self
    }

    /// Consumes all partitions of the topics without joining a group. Default: off.
    ///
    /// Nothing is committed to Kafka, and every run starts where [`start_at`](Self::start_at) and
    /// [`offset_reset_policy`](Self::offset_reset_policy) decide. Several such consumers all read
    /// everything. `group.id` is not needed. Partitions that are added later are found within
    /// `topic.metadata.refresh.interval.ms`, or 60 s. So is a topic that was deleted and created
    /// again: the same policies decide where it starts. Topics are names, not patterns.
    pub fn without_group(mut self) -> Self {
        self.options.without_group = true;
        self
    }

    /// Delivers each row exactly once, into a sink that offers it
    /// ([`Reducer::start_exactly_once`](crate::Reducer::start_exactly_once)). No store is needed
    /// besides the group's own committed offsets. Default: at least once.
    ///
    /// Batches become blocks of one partition each. kmr plans a block before it inserts it: it
    /// commits the plan (offsets, number of rows, their hash, a token) as the metadata of the
    /// partition's offset. The insert carries the token. After a crash, the partition's next owner
    /// reads the plan with the offset, rebuilds exactly that block and inserts it under the same
    /// token. The sink drops it if it is stored already. A block costs one more commit than in
    /// at-least-once mode, and partitions share commits.
    ///
    /// Requirements:
    ///
    /// * A strategy of map stages and one reduce; `partial_batch` at its default; a group; brokers
    ///   from Kafka 2.8 on.
    /// * Deterministic mapping: the same record gives the same rows, in every process. A rebuilt
    ///   block that differs stops the consumer with [`Error::BlockChanged`].
    /// * Only kmr moves the group's offsets. At an offset that another tool committed, and for a
    ///   topic that was created again, the consumer stops with [`Error::ForeignOffset`].
    ///   [`reset_offsets`](crate::reset_offsets) sets them, also when a group that has committed
    ///   offsets is switched to this mode. [`seek`](ConsumerHandle::seek) is denied.
    /// * A consumer without the mode stops at a partition that has an open plan: run one with the
    ///   mode first.
    ///
    /// A row that the sink rejects becomes a dead letter, which is acknowledged before the other
    /// rows of its block are inserted. Without `reduce_err` it stops the consumer.
    ///
    /// Dead letters may be delivered twice: the records of a rebuilt block fail again. If the sink
    /// accepts a row that it rejected before, the row may be stored beside its dead letter. It is
    /// never stored twice.
    pub fn exactly_once(mut self) -> Self {
        self.options.graph.exactly_once = true;
        self
    }

    /// When kmr warns of a partition that makes no progress, and when it restarts it. Default
    /// [`Watchdog::default`]: a warning after 60 s, a restart after 15 min.
    pub fn watchdog(mut self, watchdog: Watchdog) -> Self {
        self.options.watchdog = watchdog;
        self
    }

    /// Ends the consumer, in order and without an error, when every partition that it owns has been
    /// read to its end: for backfills. Default: it runs until a stop request.
    ///
    /// kmr determines each partition's end when it is assigned to this consumer for the first time.
    /// Records at or after the end are not processed and not committed. A paused partition has not
    /// reached its end.
    ///
    /// In exactly-once mode, a block that an earlier run has planned is rebuilt as a whole, also
    /// where it reaches past the end. If a rebalance interrupts the end, the run ends with
    /// [`Error::Unfinished`](crate::Error::Unfinished), and the next one reads the rest.
    ///
    /// A consumer also ends if it is assigned nothing for 60 s, counted from the start or from the
    /// last rebalance. With a session timeout above 60 s, do not start a consumer while the group
    /// still waits for a member that died.
    ///
    /// While the leader of a partition does not respond, the run cannot end. After
    /// [`reconnect_timeout`](Self::reconnect_timeout), 10 min by default, it ends with an error
    /// that names the leader.
    pub fn until(mut self, until: Until) -> Self {
        self.options.graph.until = Some(until);
        self
    }

    /// Lets the Kafka client report when it has read a partition to its end, so that
    /// [`ConsumerHandle::has_caught_up`](crate::ConsumerHandle::has_caught_up) can tell. Default:
    /// off. It costs one event each time a partition is read to its end.
    pub fn report_ends(mut self) -> Self {
        self.options.graph.reports_ends = true;
        self
    }

    /// Registers a callback for rebalances, client loss and shutdown. It runs in kmr's tasks and
    /// must not block. kmr catches and logs its panic. The last callback set is the one that runs.
    pub fn on_rebalance(mut self, listener: impl Fn(&RebalanceEvent) + Send + Sync + 'static) -> Self {
        self.options.graph.listeners.rebalance = Some(Arc::new(listener));
        self
    }

    /// Registers a callback for the outcome of each offset's commit. It runs in kmr's tasks and
    /// must not block. kmr catches and logs its panic. The last callback set is the one that runs.
    pub fn on_commit(mut self, listener: impl Fn(&CommitEvent) + Send + Sync + 'static) -> Self {
        self.options.graph.listeners.commit = Some(Arc::new(listener));
        self
    }

    /// When the failure rate stops the consumer, instead of draining a topic into the dead letters.
    /// Default: half of the records of the last 60 s, of at least 1,000, or 1,000 in a row (see
    /// [`CircuitBreaker`]). `None`: never.
    ///
    /// Nothing is lost. The next run reads the records again that failed last at a map stage, and
    /// records that a sink rejected have their dead letters. A mapper that expects that many bad
    /// records can skip them, or raise the limits.
    pub fn circuit_breaker(mut self, breaker: impl Into<Option<CircuitBreaker>>) -> Self {
        self.options.graph.circuit_breaker = breaker.into();
        self
    }

    /// Whether metrics are recorded. Default `true`. See [`ConsumerHandle::metrics`].
    #[cfg(feature = "metrics")]
    pub fn record_metrics(mut self, records: bool) -> Self {
        self.options.metrics = records;
        self
    }

    /// Ends the consumer in order when `signal` resolves, in place of SIGINT and SIGTERM. It never
    /// forces the end: [`ConsumerHandle::stop`] has the rule.
    pub fn shutdown_signal(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Shutdown::Future(Box::pin(signal));
        self
    }
}

impl Consumer {
    /// A builder with the default settings.
    pub fn builder() -> ConsumerBuilder {
        ConsumerBuilder::default()
    }
}

impl ConsumerBuilder<Pipeline> {
    /// Checks everything that can be checked without a connection.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting and the remedy.
    pub fn build(mut self) -> Result<Consumer, Error> {
        self.options.check(&self.pipeline)?;
        if self.options.reset.is_none() {
            let setting = self.options.config.get("auto.offset.reset");
            self.options.reset = setting.map(ResetPolicy::from_setting).transpose()?;
        }
        let (sender, controls) = controls();
        let handle = ConsumerHandle {
            controls: sender,
            counters: Arc::new(Counters::with_metrics(self.options.recorder())),
            #[cfg(feature = "metrics")]
            group: self.options.config.get("group.id").unwrap_or_default().into(),
            #[cfg(feature = "metrics")]
            instance: self.options.config.get("group.instance.id").map(Into::into),
            #[cfg(feature = "metrics")]
            built: std::time::Instant::now(),
            budget: Budget::new(self.options.memory_budget - self.options.prefetch_bytes()),
        };
        Ok(Consumer {
            options: self.options,
            pipeline: self.pipeline,
            handle,
            controls,
            shutdown: self.shutdown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::test_builder::{builder, text};
    use crate::test_reducer::Collect;
    use crate::{PartialBatch, Strategy};

    /// Asserts that the consumer cannot be built, and that the error names the setting.
    #[track_caller]
    fn assert_denied(builder: ConsumerBuilder<Pipeline>, setting: &str) {
        let error = builder.build().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(setting), "{setting} is not in {error:?}");
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        assert_denied(builder().topics(Vec::<String>::new()), "no topics");
        assert_denied(builder().config(ClientConfig::new()), "bootstrap.servers");
        assert_denied(builder().topics(["^t"]).without_group(), "is a pattern");
        assert_denied(builder().memory_budget(1), "memory_budget");
        assert_denied(builder().drain_timeout(Duration::from_secs(9)), "drain_timeout");
        assert_denied(builder().drain_timeout(Duration::from_secs(400)), "max.poll.interval.ms");
        let impatient = Watchdog::default().with_restart_after(Duration::from_secs(9));
        assert_denied(builder().watchdog(impatient), "restart_after");
        let always = CircuitBreaker::default().with_max_failure_ratio(1.5);
        assert_denied(builder().circuit_breaker(always), "max_failure_ratio");
    }

    #[test]
    fn settings_that_cannot_work_in_exactly_once_mode_are_named() {
        assert_denied(builder().exactly_once().without_group(), "without_group");
        assert_denied(
            builder().exactly_once().out_of_range_policy(ResetPolicy::Latest),
            "out_of_range_policy",
        );
        let discards = Collect::default().with_options(|o| o.with_partial_batch(PartialBatch::Discard));
        let discards = Strategy::new().map(text).reduce(discards);
        assert_denied(builder().exactly_once().strategy(discards), "partial_batch");
        let pass = |rows: usize| Ok::<_, std::convert::Infallible>(rows);
        let two = Strategy::new().map(text).reduce(Collect::default()).map(pass).reduce(Collect::default());
        assert_denied(builder().exactly_once().strategy(two), "more than one reduce");
        assert!(builder().exactly_once().build().is_ok());
    }

    #[test]
    fn dead_letters_cannot_go_to_a_topic_that_the_consumer_reads() {
        use crate::consumer::test_builder::writing_dead_letters_to;
        for (topics, how) in
            [(["t", "dead"], "is one of its topics \"dead\""), (["t", "^dea"], "its pattern \"^dea\"")]
        {
            for brokers in ["127.0.0.1:1", "127.0.0.1:1,b:2"] {
                let denied = builder().topics(topics).strategy(writing_dead_letters_to("dead", brokers));
                assert_denied(denied, how);
            }
            let other = builder().topics(topics).strategy(writing_dead_letters_to("dead", "elsewhere:1"));
            assert!(other.build().is_ok(), "the topic of another cluster");
            let other = builder().topics(topics).strategy(writing_dead_letters_to("other", "127.0.0.1:1"));
            assert!(other.build().is_ok());
        }
    }

    #[test]
    fn patterns_that_the_broker_matches_deny_no_topic_of_dead_letters() {
        use crate::consumer::test_builder::writing_dead_letters_to;
        let to_dead = |topic: &str| {
            let config = ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1").set("group.id", "g");
            let kip_848 = config.set("group.protocol", "consumer");
            builder().config(kip_848).topics([topic]).strategy(writing_dead_letters_to("dead", "127.0.0.1:1"))
        };
        assert!(to_dead("^dea").build().is_ok(), "the broker compares the whole name");
        assert_denied(to_dead("dead"), "is one of its topics");
    }

    #[test]
    fn defaults_build_also_without_restarts_and_breaker() {
        let watchdog = Watchdog::default().with_restart_after(None);
        assert!(builder().watchdog(watchdog).circuit_breaker(None).build().is_ok());
        assert!(builder().build().is_ok());
    }

    #[test]
    fn partition_is_not_late_before_its_batch_is_due() {
        let slow = Collect::default().with_options(|o| o.with_max_age(Duration::from_secs(3600)));
        let pipeline = Strategy::new().map(text).reduce(slow).into_pipeline();
        let watchdog = Watchdog::default().with_warn_after(Duration::from_secs(5));
        let thresholds = builder().watchdog(watchdog).options.graph(&pipeline).thresholds;
        assert_eq!(thresholds.warn_after, Duration::from_secs(3605));
        assert_eq!(thresholds.restart_after, Some(Duration::from_secs(3600 + 900)));
    }
}
