//! A consumer that is built, and its run.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::handle::ConsumerHandle;
use super::options::Options;
use super::report::RunReport;
use super::runtime_watchdog::{self, EXIT_CODE};
use crate::client::{Connect, OpenOptions};
use crate::error::{BoxError, Error, error_chain};
use crate::event::Event;
use crate::graph::control::Controls;
#[cfg(feature = "testing")]
use crate::graph::memory::budget::Budget;
use crate::graph::pipeline::Pipeline;
use crate::graph::run::Graph;
use crate::member::Connector;
use crate::{signals, telemetry};

/// The source of the request that ends a consumer in order.
#[derive(Default)]
pub(super) enum Shutdown {
    /// SIGINT and SIGTERM.
    #[default]
    Signals,
    Future(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl std::fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Shutdown::Signals) { "Signals" } else { "Future" })
    }
}

/// A consumer that is ready to run.
#[derive(Debug)]
pub struct Consumer {
    pub(super) options: Options,
    pub(super) pipeline: Pipeline,
    pub(super) handle: ConsumerHandle,
    pub(super) controls: Controls,
    pub(super) shutdown: Shutdown,
}

impl Consumer {
    /// A handle that watches and directs the consumer from elsewhere.
    pub fn handle(&self) -> ConsumerHandle {
        self.handle.clone()
    }

    /// Runs until a stop request or a failure, then ends in order: stop reading, drain, flush, dead
    /// letters, commit, leave. Then it destroys its Kafka clients, for 3 s at most, so that the
    /// process can end.
    ///
    /// # Errors
    /// The reason why the consumer did not start, or stopped. [`Error::Unfinished`] if the drain
    /// timeout expired after a stop request, or the end was forced
    /// ([`ConsumerHandle::stop`] has the rule). No unfinished record was committed.
    ///
    /// # Cancel safety
    /// Dropping the future ends the consumer at once, without the ordered shutdown. Nothing is
    /// lost: the next consumer reads unfinished records again.
    pub async fn run(self) -> Result<RunReport, Error> {
        let connect = self.connect();
        self.run_connected(connect).await
    }

    /// The consumer's way to its clients.
    fn connect(&self) -> Connect {
        let exactly_once = self.options.graph.exactly_once;
        let config = self.options.config.clone();
        let client = OpenOptions {
            topics: self.options.topics.clone(),
            config: if exactly_once { config.for_exactly_once() } else { config },
            without_group: self.options.without_group,
            // A planned block may end before a gap at the end of the log (E8).
            reports_ends: self.options.graph.reports_ends
                || self.options.graph.until.is_some()
                || exactly_once,
            prefetch_bytes: self.options.prefetch_bytes(),
            timeout: self.options.graph.connect_timeout,
            live: Default::default(),
            first_topics: Default::default(),
        };
        Connect {
            client,
            start_at: self.options.start_at.clone(),
            reset: self.options.reset.unwrap_or_default(),
            exactly_once,
            remembered: Default::default(),
            reader: Default::default(),
            renewal: Default::default(),
        }
    }

    /// Returns when the clients are destroyed, because the process may end next.
    async fn run_connected(self, connect: Connect) -> Result<RunReport, Error> {
        let live = connect.client.live.clone();
        let watchdog = &self.options.watchdog;
        let _watching =
            watchdog.restart_after.map(|limit| runtime_watchdog::watch(limit, watchdog.exit_when_stuck));
        let ended = self.run_on(Arc::new(connect), seed()).await;
        if !live.destroyed(Duration::MAX).await {
            telemetry::client_in_use();
        }
        ended
    }

    /// Runs on Kafka, or on another [`Connector`]. `seed` decides the jitter of
    /// retries.
    pub(crate) async fn run_on(self, connector: Arc<dyn Connector>, seed: u64) -> Result<RunReport, Error> {
        let Consumer { options, pipeline, handle, controls, shutdown } = self;
        let _signals = match shutdown {
            Shutdown::Signals => signals::listen(handle.controls.stop.clone())?,
            Shutdown::Future(future) => signals::follow(future, handle.controls.stop.clone()),
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
        if options.watchdog.exit_when_stuck && matches!(&ending, Err(Error::Stuck { .. })) {
            exit_soon();
        }
        if let Err(error) = &ending {
            let text = || format!("the consumer ended: {}", error_chain(error));
            handle.counters.metrics.event(|| Event::error(text()));
        }
        let stats = handle.stats();
        ending.map(|ending| RunReport::new(&ending, stats))
    }
}

/// Ends the process if it still runs after [`EXIT_AFTER`]. A mapper that does not return keeps its
/// thread, and the runtime waits for that thread.
fn exit_soon() {
    let exit = || {
        std::thread::sleep(EXIT_AFTER);
        std::process::exit(EXIT_CODE);
    };
    if let Err(error) = std::thread::Builder::new().name("kmr-exit".to_owned()).spawn(exit) {
        telemetry::secondary_failure(&(Box::new(error) as BoxError));
    }
}

/// Time that the process has to end by itself after [`Error::Stuck`].
const EXIT_AFTER: Duration = Duration::from_secs(10);

#[cfg(feature = "testing")]
impl Consumer {
    /// For simulated runs: a budget below the lowest sensible one.
    pub(crate) fn with_memory_budget(mut self, bytes: usize) -> Self {
        self.handle.budget = Budget::new(bytes);
        self
    }

    /// For a test driver: it commits as soon as a record is finished.
    pub(crate) fn committing_at_once(mut self) -> Self {
        self.options.graph.commit_interval = Duration::ZERO;
        self
    }

    /// The names and patterns of its topics.
    pub(crate) fn topics(&self) -> &[String] {
        &self.options.topics
    }

    /// For simulated runs: batches overtake each other, as they do where mapping is slower than
    /// fetching.
    pub(crate) fn without_turns(mut self) -> Self {
        self.options.graph.max_hand_offs = 0;
        self
    }
}

/// Decides the jitter of retries: a different one for each process.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) << 32 | u64::from(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TopicPartition;
    use crate::consumer::test_builder::builder;

    #[tokio::test]
    async fn handle_reports_its_pauses_and_rejects_impossible_seeks() {
        let consumer = builder().build().unwrap();
        let (handle, p) = (consumer.handle(), TopicPartition::new("t", 1));
        handle.pause([p.clone(), TopicPartition::new("t", 2)]);
        handle.resume([TopicPartition::new("t", 2), TopicPartition::new("t", 3)]);
        assert_eq!(handle.paused(), [p.clone()].into());
        handle.resume_all();
        assert!(handle.paused().is_empty() && !handle.health().is_healthy());
        assert!(matches!(handle.seek(p.clone(), -1).await, Err(Error::Config(_))));
        drop(consumer);
        assert!(matches!(handle.seek(p, 1).await, Err(Error::NotAssigned { .. })), "the consumer has ended");
    }

    #[tokio::test]
    async fn a_consumer_that_has_ended_has_destroyed_its_clients() {
        let consumer = builder().connect_timeout(Duration::from_millis(100)).build().unwrap();
        let connect = consumer.connect();
        let live = connect.client.live.clone();
        assert!(matches!(consumer.run_connected(connect).await, Err(Error::Unreachable { .. })));
        assert!(live.destroyed(Duration::ZERO).await);
    }

    #[test]
    fn consumer_can_be_spawned() {
        fn is_send(_: impl Send) {}
        is_send(builder().build().map(Consumer::run));
    }

    #[tokio::test]
    async fn stop_while_connecting_ends_the_consumer_at_once() {
        let consumer = builder().connect_timeout(Duration::from_secs(60)).build().unwrap();
        let handle = consumer.handle();
        let running = tokio::spawn(consumer.run());
        tokio::task::yield_now().await;
        handle.stop();
        let ended = tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
        assert!(ended.is_ok_and(|report| report.partitions.is_empty()));
    }

    #[tokio::test]
    async fn unreachable_broker_is_named() {
        let consumer = builder().connect_timeout(Duration::from_millis(300)).build().unwrap();
        let error = consumer.run().await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }
}
