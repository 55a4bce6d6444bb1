//! The consumer that users build and run: options, checks before anything is connected, and the run itself.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};

use crate::client::Connect;
use crate::config::{ClientConfig, ResetPolicy, StartAt};
use crate::error::Error;
use crate::graph::assembly::Graph;
use crate::graph::budget::Budget;
use crate::graph::committer::Settled;
use crate::graph::coordinator::{Ending, StopRequest};
use crate::graph::flow::Flow;
use crate::graph::wiring::{StageContext, Stages, start_stages};
use crate::member::{Connected, Connector};
use crate::record::TopicPartition;
use crate::signals;
use crate::stats::{Counters, Stats};
use crate::strategy::{IntoPipeline, Pipeline};
use crate::telemetry;

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
    stops: mpsc::UnboundedReceiver<StopRequest>,
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

#[derive(Clone, Debug)]
struct Options {
    topics: Vec<String>,
    config: ClientConfig,
    byte_budget: usize,
    drain_deadline: Duration,
    commit_interval: Duration,
    commit_timeout: Duration,
    connect_timeout: Duration,
    start_at: Option<StartAt>,
    reset: Option<ResetPolicy>,
    out_of_range: ResetPolicy,
    without_group: bool,
}

/// Least budget: below it, one fetch alone is more than the graph may hold.
const LEAST_BUDGET: usize = 4 << 20;
/// Time for a heartbeat and the answer to a rebalance, beside the drain.
const HEARTBEAT: Duration = Duration::from_secs(3);

impl Consumer {
    /// Starts to describe a consumer.
    pub fn builder() -> ConsumerBuilder {
        let options = Options {
            topics: Vec::new(),
            config: ClientConfig::new(),
            byte_budget: 64 << 20,
            drain_deadline: Duration::from_secs(180),
            commit_interval: Duration::from_secs(1),
            commit_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(30),
            start_at: None,
            reset: None,
            out_of_range: ResetPolicy::Fail,
            without_group: false,
        };
        ConsumerBuilder { options, shutdown: Shutdown::Signals, pipeline: () }
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
    pub fn byte_budget(mut self, bytes: usize) -> Self {
        self.options.byte_budget = bytes;
        self
    }

    /// How long partitions are drained before they are handed back, at a rebalance and at shutdown. Default 180 s. Has to
    /// be more than the deliveries can take, and less than `max.poll.interval.ms` (both are checked by
    /// [`build`](ConsumerBuilder::build)); past it, what is left stays uncommitted.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.options.drain_deadline = deadline;
        self
    }

    /// How often finished offsets are committed. Default 1 s. Longer saves the group's coordinator work, and more is read
    /// again after a crash.
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.options.commit_interval = interval;
        self
    }

    /// How long an unreachable broker is tried at start. Default 30 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// Where partitions start for which the group has committed nothing. Default: as the
    /// [`reset_policy`](Self::reset_policy) says, which also decides for partitions that `start_at` does not name.
    pub fn start_at(mut self, start: StartAt) -> Self {
        self.options.start_at = Some(start);
        self
    }

    /// Where a partition starts for which the group has committed nothing. Default [`ResetPolicy::Earliest`].
    pub fn reset_policy(mut self, policy: ResetPolicy) -> Self {
        self.options.reset = Some(policy);
        self
    }

    /// What happens when the offset to read next is not in the log any more, because retention was faster than the consumer
    /// or the topic was created anew: records are lost already. Default [`ResetPolicy::Fail`]: the consumer stops, naming
    /// partition, offset and what the log holds. Otherwise it goes on at the lowest or behind the last record, with a warning
    /// that names both offsets.
    pub fn out_of_range(mut self, policy: ResetPolicy) -> Self {
        self.options.out_of_range = policy;
        self
    }

    /// Consumes all partitions of the topics without joining a group: nothing is committed to Kafka, every run starts as
    /// [`start_at`](Self::start_at) and [`reset_policy`](Self::reset_policy) say, and several such consumers all read
    /// everything. `group.id` is not needed. Partitions that are added later are found within
    /// `topic.metadata.refresh.interval.ms`, or 60 s. Topics are names, not patterns. Default: off.
    pub fn without_group(mut self) -> Self {
        self.options.without_group = true;
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
        let (stop, stops) = mpsc::unbounded_channel();
        let handle = ConsumerHandle {
            stop,
            counters: Arc::default(),
            budget: Budget::new(self.options.byte_budget - self.options.byte_budget / PREFETCH_SHARE),
        };
        Ok(Consumer {
            options: self.options,
            pipeline: self.pipeline,
            handle,
            stops,
            shutdown: self.shutdown,
        })
    }
}

/// One part in so many of the byte budget is librdkafka's.
const PREFETCH_SHARE: usize = 4;

impl Options {
    fn check(&self, pipeline: &Pipeline) -> Result<(), Error> {
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
        if self.byte_budget < LEAST_BUDGET {
            let text =
                format!("byte_budget is {} bytes; it has to be at least {LEAST_BUDGET}", self.byte_budget);
            return Err(Error::Config(text));
        }
        if self.commit_interval.is_zero() {
            return Err(Error::Config("commit_interval is 0; give it at least a millisecond".to_owned()));
        }
        self.check_times(pipeline)
    }

    /// R3: whatever may be under way when a partition is revoked ends before the drain deadline, and that ends before the
    /// group gives the member up.
    fn check_times(&self, pipeline: &Pipeline) -> Result<(), Error> {
        let stages = pipeline.reduces.iter().chain(pipeline.errors.iter().map(|(info, _)| info));
        let mut chain = self.commit_timeout + HEARTBEAT;
        for info in stages {
            if let Some(problem) = info.options.problem() {
                return Err(Error::Config(format!("{}: {problem}", info.stage)));
            }
            // One attempt of what is in flight, one of the last batch.
            chain += info.options.attempt_timeout * 2;
        }
        if chain >= self.drain_deadline {
            return Err(Error::Config(format!(
                "drain_deadline is {:?}, but two attempts of every reduce, a commit and a heartbeat may take {chain:?}; \
                 raise drain_deadline or lower the attempt_timeout of the reducers",
                self.drain_deadline
            )));
        }
        let max_poll = self.config.max_poll_interval()?;
        if self.drain_deadline >= max_poll {
            return Err(Error::Config(format!(
                "drain_deadline is {:?}, which is not below max.poll.interval.ms ({max_poll:?}): the group would give the \
                 member up while it drains; lower the one or raise the other",
                self.drain_deadline
            )));
        }
        Ok(())
    }
}

impl Consumer {
    /// A handle to watch and to stop the consumer from elsewhere.
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
    pub async fn run(self) -> Result<Report, Error> {
        let Consumer { options, pipeline, handle, mut stops, shutdown } = self;
        let _signals = match shutdown {
            Shutdown::Signals => signals::listen(handle.stop.clone())?,
            Shutdown::Future(future) => signals::follow(future, handle.stop.clone()),
        };
        let (flow, flow_receiver) = watch::channel(Flow::default());
        let context = StageContext {
            flow: flow_receiver,
            budget: handle.budget.clone(),
            counters: handle.counters.clone(),
            seed: seed(),
        };
        let started = tokio::select! {
            biased;
            // Nothing has been read yet: there is nothing to end in order.
            Some(StopRequest(why)) = stops.recv() => {
                telemetry::stopped_early(why);
                return Ok(Report::new(Ending::default(), handle.stats()));
            }
            started = start(pipeline, context, &options) => started,
        };
        let (stages, Connected { member, queue }) = started?;
        let graph = Graph {
            member,
            queue,
            flow,
            stages,
            stops,
            budget: handle.budget.clone(),
            counters: handle.counters.clone(),
            commit_interval: options.commit_interval,
            drain_deadline: options.drain_deadline,
        };
        let ending = graph.run().await;
        let stats = handle.stats();
        ending.map(|ending| Report::new(ending, stats))
    }
}

/// Starts the stages, which check their sinks, then connects to Kafka.
async fn start(
    pipeline: Pipeline,
    context: StageContext,
    options: &Options,
) -> Result<(Stages, Connected), Error> {
    let stages = start_stages(pipeline, context).await?;
    let connect = Connect {
        topics: options.topics.clone(),
        config: options.config.clone(),
        start_at: options.start_at.clone(),
        reset: options.reset.unwrap_or_default(),
        without_group: options.without_group,
        reports_ends: false,
        prefetch_bytes: options.byte_budget / PREFETCH_SHARE,
        timeout: options.connect_timeout,
    };
    Ok((stages, connect.connect().await?))
}

/// Decides the jitter of retries: another one for each process.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) << 32 | u64::from(std::process::id())
}

/// Watches and stops a consumer from elsewhere.
#[derive(Clone, Debug)]
pub struct ConsumerHandle {
    stop: mpsc::UnboundedSender<StopRequest>,
    counters: Arc<Counters>,
    budget: Arc<Budget>,
}

impl ConsumerHandle {
    /// Ends the consumer in order; a second call ends it at once.
    pub fn stop(&self) {
        // The consumer may have ended already.
        let _ = self.stop.send(StopRequest("its handle"));
    }

    /// What the consumer has done so far.
    pub fn stats(&self) -> Stats {
        self.counters.snapshot(self.budget.held())
    }
}

/// How a consumer ended that was told to stop.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// What it did.
    pub stats: Stats,
    /// The partitions that it owned at the end.
    pub partitions: BTreeMap<TopicPartition, PartitionEnd>,
}

/// How one partition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionEnd {
    /// The offset committed last, if this consumer committed any.
    pub committed: Option<i64>,
    /// The lowest offset that was read and is not finished: rows that a reducer dropped at shutdown, as it was told to.
    pub unfinished_from: Option<i64>,
}

impl Report {
    fn new(ending: Ending, stats: Stats) -> Self {
        let end = |s: Settled| {
            let end = PartitionEnd { committed: s.committed, unfinished_from: s.unfinished_from };
            (s.partition, end)
        };
        Self { stats, partitions: ending.settled.into_iter().map(end).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_reducer::Collect;
    use crate::{Record, Strategy};

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
        assert!(refused(builder().byte_budget(1)).contains("byte_budget"));
        assert!(refused(builder().drain_deadline(Duration::from_secs(9))).contains("drain_deadline"));
        assert!(refused(builder().drain_deadline(Duration::from_secs(400))).contains("max.poll.interval.ms"));
        assert!(builder().build().is_ok());
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
