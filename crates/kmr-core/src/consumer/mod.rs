//! The consumer that users build and run: options, checks before anything is connected, and the run itself.

mod alive;
mod handle;
mod options;
mod report;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use self::handle::ConsumerHandle;
use self::options::Options;
use crate::circuit_breaker::CircuitBreaker;
use crate::client::Connect;
use crate::config::{ClientConfig, ResetPolicy, StartAt, Until};
pub use crate::consumer::report::RunReport;
use crate::error::{BoxError, Error};
use crate::graph::control::{Controls, controls};
use crate::graph::memory::budget::Budget;
use crate::graph::pipeline::Pipeline;
use crate::graph::run::Graph;
use crate::listeners::{CommitEvent, RebalanceEvent};
use crate::member::Connector;
use crate::strategy::IntoPipeline;
use crate::{signals, telemetry};

/// Runs `strategy` on `topics` until SIGINT or SIGTERM, then ends in order. The short form of [`Consumer::builder`].
///
/// # Errors
/// Whatever kept it from starting, or stopped it. Nothing was committed that had not been finished.
///
/// # Cancel safety
/// Dropping the future ends the consumer at once, without the ordered shutdown: nothing is lost, what was under way is read
/// again.
pub async fn start_consumer<T, S>(topics: T, config: ClientConfig, strategy: S) -> Result<(), Error>
where
    T: IntoIterator,
    T::Item: Into<String>,
    S: IntoPipeline,
{
    Consumer::builder().topics(topics).config(config).strategy(strategy).build()?.run().await.map(drop)
}

/// A consumer that is ready to run.
#[derive(Debug)]
pub struct Consumer {
    options: Options,
    pipeline: Pipeline,
    handle: ConsumerHandle,
    controls: Controls,
    shutdown: Shutdown,
}

/// A future that ends the consumer.
enum Shutdown {
    /// SIGINT and SIGTERM.
    Signals,
    Future(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl std::fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Shutdown::Signals) { "Signals" } else { "Future" })
    }
}

/// What [`Consumer::builder`] collects.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ConsumerBuilder<P = ()> {
    options: Options,
    shutdown: Shutdown,
    pipeline: P,
}

impl Consumer {
    /// Starts to describe a consumer.
    pub fn builder() -> ConsumerBuilder {
        ConsumerBuilder { options: Options::default(), shutdown: Shutdown::Signals, pipeline: () }
    }
}

impl<P> ConsumerBuilder<P> {
    /// The topics to consume; a name that starts with `^` is a pattern.
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

    /// What happens to the records.
    pub fn strategy<S: IntoPipeline>(self, strategy: S) -> ConsumerBuilder<Pipeline> {
        let ConsumerBuilder { options, shutdown, .. } = self;
        ConsumerBuilder { options, shutdown, pipeline: strategy.into_pipeline() }
    }

    /// Memory for records and rows from fetch to acknowledgement, in bytes. Default 64 MiB, at least 4 MiB. A quarter of it
    /// is librdkafka's prefetch. Too small makes small batches; one record always passes, however large.
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.options.memory_budget = bytes;
        self
    }

    /// How long partitions are drained before they are handed back, at a rebalance and at shutdown. Default 180 s. Has to
    /// be more than the deliveries can take, and less than `max.poll.interval.ms` (both are checked by
    /// [`build`](ConsumerBuilder::build)); past it, what is left stays uncommitted.
    pub fn drain_timeout(mut self, deadline: Duration) -> Self {
        self.options.graph.drain_timeout = deadline;
        self
    }

    /// How often finished offsets are committed. Default 1 s. Longer saves the group's coordinator work, and more is read
    /// again after a crash.
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.options.graph.commit_interval = interval;
        self
    }

    /// How long it is tried to put a new Kafka client in the place of one that failed for good: one that was thrown out of its group
    /// by a fatal error, say, or could not answer a rebalance. Default 10 min. Nothing of the failed client is committed; its
    /// partitions are read again from where they were committed. Tries start after 1 s and wait up to 30 s; past the limit the
    /// consumer ends with the last error, as it does at once where a new client cannot help (permissions, a fenced
    /// `group.instance.id`). A client that lives for less than a minute does not end a series of tries.
    pub fn reconnect_timeout(mut self, limit: Duration) -> Self {
        self.options.graph.reconnect_timeout = limit;
        self
    }

    /// How long an unreachable broker is tried at start. Default 30 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// Where partitions start for which the group has committed nothing. Default: as the
    /// [`offset_reset_policy`](Self::offset_reset_policy) says, which also decides for partitions that `start_at` does not name.
    pub fn start_at(mut self, start: StartAt) -> Self {
        self.options.start_at = Some(start);
        self
    }

    /// Where a partition starts for which the group has committed nothing. Default [`ResetPolicy::Earliest`].
    pub fn offset_reset_policy(mut self, policy: ResetPolicy) -> Self {
        self.options.reset = Some(policy);
        self
    }

    /// What happens when the offset to read next is not in the log any more, because retention was faster than the consumer
    /// or the topic was created anew: records are lost already. Default [`ResetPolicy::Fail`]: the consumer stops, naming
    /// partition, offset and what the log holds. Otherwise it goes on at the lowest or behind the last record, with a warning
    /// that names both offsets.
    pub fn out_of_range_policy(mut self, policy: ResetPolicy) -> Self {
        self.options.graph.out_of_range = policy;
        self
    }

    /// Consumes all partitions of the topics without joining a group: nothing is committed to Kafka, every run starts as
    /// [`start_at`](Self::start_at) and [`offset_reset_policy`](Self::offset_reset_policy) say, and several such consumers all read
    /// everything. `group.id` is not needed. Partitions that are added later are found within
    /// `topic.metadata.refresh.interval.ms`, or 60 s. Topics are names, not patterns. Default: off.
    pub fn without_group(mut self) -> Self {
        self.options.without_group = true;
        self
    }

    /// Delivers each row exactly once, into a sink that can ([`Reducer::start_exactly_once`](crate::Reducer::start_exactly_once)),
    /// with no other store than the group's own committed offsets. Default: at least once.
    ///
    /// Batches become blocks of one partition each. Before a block is inserted, its plan (which offsets, how many rows, their hash, a
    /// token) is committed as the metadata of the partition's offset; the insert carries the token. Whoever gets the partition after a
    /// crash reads the plan with the offset, makes exactly that block again and inserts it under the same token, and the sink
    /// drops it if it was in already. A block costs one more commit than in at-least-once mode; partitions share them.
    ///
    /// What it asks for:
    ///
    /// * A strategy of map stages and one reduce; `partial_batch` as by default; a group; brokers from Kafka 2.8 on.
    /// * Mapping has to be deterministic: the same record gives the same rows, in every process. A block that comes out
    ///   differently stops the consumer with [`Error::BlockChanged`].
    /// * Only kmr moves the group's offsets. At an offset that another tool committed, and for a topic that was created again,
    ///   the consumer stops with [`Error::ForeignOffset`]; [`reset_offsets`](crate::reset_offsets) is the way
    ///   to set them, also when a group that has committed offsets is switched to this mode. [`seek`](ConsumerHandle::seek) is refused.
    /// * A consumer without the mode refuses a partition that has an open plan: run one with it first.
    ///
    /// A row that the sink refuses becomes a dead letter, which is acknowledged before the others of its block go in; without
    /// `reduce_err` it stops the consumer.
    ///
    /// Dead letters may come twice: a block that is made again fails its records again. If the sink has changed its mind meanwhile about
    /// a row that it refused, the row may be in the sink beside its dead letter; it is never in the sink twice.
    pub fn exactly_once(mut self) -> Self {
        self.options.graph.exactly_once = true;
        self
    }

    /// When a partition is warned of whose oldest unfinished record is that old, and [`Health`](crate::Health) says that it is late.
    /// Default 60 s, on top of the `max_age` of the reducers' batches. The warning names what it waits for, and is repeated when
    /// the age has doubled.
    pub fn warn_after(mut self, age: Duration) -> Self {
        self.options.graph.thresholds.warn_after = age;
        self
    }

    /// When something is done about such a partition. Default 15 min, on top of the `max_age` of the reducers' batches; `None`: never.
    /// At least the drain deadline.
    ///
    /// First it is drained as far as it can be and starts anew from its committed offset; after the same time the consumer gets a
    /// new Kafka client; after the same time again it ends with [`Error::Stuck`]. It ends at once if the mapper does not return:
    /// a task cannot be taken out of user code. Each step delivers again what was not committed.
    ///
    /// Deliveries that are being tried again, and records whose mapper asks for another try, are not touched, however long that takes:
    /// their retry policies say when to give up. So the default only has to be longer than anything that is right takes without a
    /// try in between: one record's mapping, and a drain.
    pub fn heal_after(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.options.graph.thresholds.heal_after = age.into();
        self
    }

    /// Whether the process ends, with exit code 70, if it is still there 10 s after the consumer has ended with [`Error::Stuck`].
    /// Also, at once, if Tokio's runtime does not get on for [`heal_after`](Self::heal_after), because such mappers hold all of its
    /// worker threads. Default: no, then that is only logged. A mapper that does not return keeps its thread, and Tokio's runtime waits for that when it is dropped: without
    /// this the process may stay for ever, as a member of no group. For programs that are nothing but a consumer.
    pub fn exit_when_stuck(mut self, exits: bool) -> Self {
        self.options.exit_when_stuck = exits;
        self
    }

    /// Ends the consumer, in order and without an error, when every partition that it owns has been read so far: for backfills.
    /// Default: it runs for ever.
    ///
    /// Each partition's end is found out when it is assigned to this consumer for the first time. Records at or behind it are not
    /// processed and not committed. Partitions that are paused are not done. A consumer that is assigned nothing for 60 s, counted from
    /// the start or from the last rebalance, ends, too. With a session timeout above that, start none while the group still waits
    /// for a member that died.
    pub fn until(mut self, until: Until) -> Self {
        self.options.graph.until = Some(until);
        self
    }

    /// Hears of rebalances, the loss of a client and the end. Called from kmr's tasks: it must not block. A panic is caught and
    /// logged. The last listener that is set counts.
    pub fn on_rebalance(mut self, listener: impl Fn(&RebalanceEvent) + Send + Sync + 'static) -> Self {
        self.options.graph.listeners.rebalance = Some(Arc::new(listener));
        self
    }

    /// Hears of the outcome of each offset's commit. Called from kmr's tasks: it must not block. A panic is caught and logged. The
    /// last listener that is set counts.
    pub fn on_commit(mut self, listener: impl Fn(&CommitEvent) + Send + Sync + 'static) -> Self {
        self.options.graph.listeners.commit = Some(Arc::new(listener));
        self
    }

    /// When so many records have failed that the consumer stops, naming the last errors, instead of draining a topic into the dead
    /// letters. Default: half of the records of the last 60 s, of at least 1,000, or 1,000 in a row (see [`CircuitBreaker`]); `None`: never.
    ///
    /// Nothing is lost: records that were counted at a map stage last are read again by the next run, those that a sink rejected
    /// have their dead letters. A mapper that has to expect as many bad records can skip them, or raise the limits.
    pub fn circuit_breaker(mut self, breaker: impl Into<Option<CircuitBreaker>>) -> Self {
        self.options.graph.breaker = breaker.into();
        self
    }

    /// Ends the consumer in order when `signal` resolves, in place of SIGINT and SIGTERM.
    pub fn shutdown_signal(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Shutdown::Future(Box::pin(signal));
        self
    }
}

impl ConsumerBuilder<Pipeline> {
    /// Checks all that can be checked without a connection.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting and the remedy.
    pub fn build(mut self) -> Result<Consumer, Error> {
        self.options.check(&self.pipeline)?;
        if self.options.reset.is_none() {
            let setting = self.options.config.get("auto.offset.reset");
            self.options.reset = setting.map(ResetPolicy::from_setting).transpose()?;
        }
        let (remote, controls) = controls();
        let handle = ConsumerHandle {
            remote,
            counters: Arc::default(),
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

impl Consumer {
    /// A handle to watch and to direct the consumer from elsewhere.
    pub fn handle(&self) -> ConsumerHandle {
        self.handle.clone()
    }

    /// Runs until it is told to stop or fails, then ends in order: intake, drain, flush, dead letters, commit, leave.
    ///
    /// # Errors
    /// Whatever kept it from starting, or stopped it; [`Error::Unfinished`] if it was told to stop and the drain deadline
    /// passed, or a second signal came. Nothing was committed that had not been finished.
    ///
    /// # Cancel safety
    /// Dropping the future ends the consumer at once, without the ordered shutdown: nothing is lost, what was under way is
    /// read again.
    pub async fn run(self) -> Result<RunReport, Error> {
        let connect = Connect {
            topics: self.options.topics.clone(),
            config: self.options.config.clone(),
            start_at: self.options.start_at.clone(),
            reset: self.options.reset.unwrap_or_default(),
            without_group: self.options.without_group,
            // A planned block may end in front of a gap at the end of the log (E8).
            reports_ends: self.options.graph.until.is_some() || self.options.graph.exactly_once,
            exactly_once: self.options.graph.exactly_once,
            prefetch_bytes: self.options.prefetch_bytes(),
            timeout: self.options.connect_timeout,
            memory: Default::default(),
            reader: Default::default(),
        };
        let limit = self.options.graph.thresholds.heal_after;
        let _alive = limit.map(|limit| alive::watch(limit, self.options.exit_when_stuck));
        self.run_on(Arc::new(connect), seed()).await
    }

    /// Runs on Kafka, or on whatever else `connector` connects to. `seed` decides the jitter of retries.
    pub(crate) async fn run_on(self, connector: Arc<dyn Connector>, seed: u64) -> Result<RunReport, Error> {
        let Consumer { options, pipeline, handle, controls, shutdown } = self;
        let _signals = match shutdown {
            Shutdown::Signals => signals::listen(handle.remote.stop.clone())?,
            Shutdown::Future(future) => signals::follow(future, handle.remote.stop.clone()),
        };
        let graph = Graph {
            connector,
            controls,
            budget: handle.budget.clone(),
            counters: handle.counters.clone(),
            seed,
            options: options.graph(&pipeline),
        };
        let ending = graph.run(pipeline).await;
        if options.exit_when_stuck && matches!(&ending, Err(Error::Stuck { .. })) {
            exit_soon();
        }
        let stats = handle.stats();
        ending.map(|ending| RunReport::new(&ending, stats))
    }
}

/// Ends the process if it is still there after a while. A mapper that does not return keeps its thread, and the runtime waits for it.
fn exit_soon() {
    let exit = || {
        std::thread::sleep(EXIT_AFTER);
        std::process::exit(EXIT_CODE);
    };
    if let Err(error) = std::thread::Builder::new().name("kmr-exit".to_owned()).spawn(exit) {
        telemetry::secondary_failure(&(Box::new(error) as BoxError));
    }
}

/// How long the process has to end by itself after [`Error::Stuck`].
const EXIT_AFTER: Duration = Duration::from_secs(10);
/// `EX_SOFTWARE` of sysexits.h.
const EXIT_CODE: i32 = 70;

#[cfg(feature = "testing")]
impl Consumer {
    /// For simulated runs: a budget below what is sensible.
    pub(crate) fn with_memory_budget(mut self, bytes: usize) -> Self {
        self.handle.budget = Budget::new(bytes);
        self
    }

    /// For simulated runs: batches overtake each other, as where mapping does not keep up with fetching.
    pub(crate) fn without_turns(mut self) -> Self {
        self.options.graph.max_hand_offs = 0;
        self
    }
}

/// Decides the jitter of retries: another one for each process.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) << 32 | u64::from(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_reducer::Collect;
    use crate::{Record, Strategy, TopicPartition};

    fn text(record: &Record<'_>) -> Result<String, std::str::Utf8Error> {
        Ok(std::str::from_utf8(record.payload().unwrap_or_default())?.to_owned())
    }

    fn builder() -> ConsumerBuilder<Pipeline> {
        let config = ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1").set("group.id", "g");
        Consumer::builder()
            .topics(["t"])
            .config(config)
            .strategy(Strategy::new().map(text).reduce(Collect::default()))
    }

    fn refused(builder: ConsumerBuilder<Pipeline>) -> String {
        builder.build().err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_cannot_work_is_refused_by_name_before_anything_is_connected() {
        assert!(refused(builder().topics(Vec::<String>::new())).contains("no topics"));
        assert!(refused(builder().config(ClientConfig::new())).contains("bootstrap.servers"));
        assert!(refused(builder().topics(["^t"]).without_group()).contains("is a pattern"));
        assert!(refused(builder().memory_budget(1)).contains("memory_budget"));
        assert!(refused(builder().drain_timeout(Duration::from_secs(9))).contains("drain_timeout"));
        assert!(refused(builder().drain_timeout(Duration::from_secs(400))).contains("max.poll.interval.ms"));
        assert!(refused(builder().heal_after(Duration::from_secs(9))).contains("heal_after"));
        assert!(refused(builder().exactly_once().without_group()).contains("without_group"));
        assert!(
            refused(builder().exactly_once().out_of_range_policy(ResetPolicy::Latest))
                .contains("out_of_range")
        );
        let drops = Collect::default().with_options(|o| o.with_partial_batch(crate::PartialBatch::Discard));
        assert!(
            refused(builder().exactly_once().strategy(Strategy::new().map(text).reduce(drops)))
                .contains("partial_batch")
        );
        let pass = |rows: usize| Ok::<_, std::convert::Infallible>(rows);
        let two = Strategy::new().map(text).reduce(Collect::default()).map(pass).reduce(Collect::default());
        assert!(refused(builder().exactly_once().strategy(two)).contains("more than one reduce"));
        assert!(builder().exactly_once().build().is_ok());
        assert!(
            refused(builder().circuit_breaker(CircuitBreaker::default().with_max_failure_ratio(1.5)))
                .contains("max_failure_ratio")
        );
        assert!(builder().heal_after(None).circuit_breaker(None).build().is_ok());
        assert!(builder().build().is_ok());
    }

    #[test]
    fn nothing_is_late_before_its_batch_is_due() {
        let slow = Collect::default().with_options(|o| o.with_max_age(Duration::from_secs(3600)));
        let pipeline = Strategy::new().map(text).reduce(slow).into_pipeline();
        let thresholds = builder().warn_after(Duration::from_secs(5)).options.graph(&pipeline).thresholds;
        assert_eq!(thresholds.warn_after, Duration::from_secs(3605));
        assert_eq!(thresholds.heal_after, Some(Duration::from_secs(3600 + 900)));
    }

    #[tokio::test]
    async fn a_handle_says_what_it_was_told_and_what_cannot_be() {
        let consumer = builder().build().unwrap();
        let (handle, p) = (consumer.handle(), TopicPartition::new("t", 1));
        handle.pause([p.clone(), TopicPartition::new("t", 2)]);
        handle.resume([TopicPartition::new("t", 2), TopicPartition::new("t", 3)]);
        assert_eq!(handle.paused(), [p.clone()].into());
        handle.resume_all();
        assert!(handle.paused().is_empty() && !handle.health().is_healthy());
        assert!(matches!(handle.seek(p.clone(), -1).await, Err(Error::Config(_))));
        drop(consumer);
        assert!(
            matches!(handle.seek(p, 1).await, Err(Error::NotAssigned { .. })),
            "there is no consumer any more"
        );
    }

    #[test]
    fn a_consumer_can_be_spawned() {
        fn is_send(_: impl Send) {}
        is_send(builder().build().map(Consumer::run));
    }

    #[tokio::test]
    async fn a_stop_while_it_still_connects_ends_it_at_once() {
        let consumer = builder().connect_timeout(Duration::from_secs(60)).build().unwrap();
        let handle = consumer.handle();
        let running = tokio::spawn(consumer.run());
        tokio::task::yield_now().await;
        handle.stop();
        let ended = tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
        assert!(ended.is_ok_and(|report| report.partitions.is_empty()));
    }

    #[tokio::test]
    async fn an_unreachable_broker_is_named() {
        let consumer = builder().connect_timeout(Duration::from_millis(300)).build().unwrap();
        let error = consumer.run().await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }
}
