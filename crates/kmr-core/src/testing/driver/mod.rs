//! Runs one strategy step by step in a unit test: [`Driver`].

mod kafka;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use self::kafka::{DriverConnector, DriverKafka};
use super::NewRecord;
use crate::config::ClientConfig;
use crate::consumer::{Consumer, ConsumerBuilder, ConsumerHandle, RunReport};
use crate::error::{Error, error_chain};
use crate::graph::pipeline::Pipeline;
use crate::strategy::IntoPipeline;

/// The topic of a driver, if its settings name no other.
const TOPIC: &str = "driver";

/// Jitter of retries is the same in every test.
const SEED: u64 = 1;

/// Runs one strategy without Kafka and without async code: records in, rows and commits out.
///
/// It runs the real consumer on one thread, with a log in memory. Only [`advance`](Self::advance)
/// and [`finish`](Self::finish) move its clock. Each call returns when the consumer has nothing
/// left to do at the current time. So a test needs no sleep and no polling, and its result does not
/// depend on the speed of the machine.
///
/// The test keeps a handle to its own sinks, and reads rows and dead letters there. `MemoryWriter`
/// of `kmr-sinks` is such a sink. It also fails, stalls and rejects on demand.
///
/// The first record of a partition assigns the partition. Offsets start at 0. Finished records are
/// committed at once, whatever [`commit_interval`](ConsumerBuilder::commit_interval) is.
///
/// # Limits
/// * Kafka is not simulated: no rebalance, no failed commit, no lost client. For these, see
///   [`sim`](super::sim) and [`EmbeddedCluster`](super::EmbeddedCluster).
/// * The clock is Tokio's. [`SystemTime`] and [`std::time::Instant`] read the machine's clock.
/// * No call waits for sockets, or for threads that a stage starts. While a stage waits for them,
///   the clock moves on and its timeouts expire.
/// * `advance` and `finish` wait for `tokio::task::spawn_blocking`. `pipe` does not.
/// * A stage that blocks its thread blocks the test.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use kmr_core::testing::{Driver, NewRecord};
/// use kmr_core::{BoxError, Record, Strategy};
/// # use std::sync::{Arc, Mutex};
/// # use kmr_core::{async_trait, Attempt, Chunk, Delivered, Delivery, DeliveryError, Reducer};
/// # #[derive(Clone, Default)]
/// # struct MemoryWriter { open: Vec<String>, rows: Arc<Mutex<Vec<String>>> }
/// # struct Batch(Vec<String>, Arc<Mutex<Vec<String>>>);
/// # #[async_trait]
/// # impl Reducer for MemoryWriter {
/// #     type Rows = Vec<String>;
/// #     type Output = ();
/// #     fn new_rows(&self) -> Vec<String> { Vec::new() }
/// #     fn accept(&mut self, chunk: Chunk<Vec<String>>) -> Result<(), BoxError> { self.open.extend(chunk.rows); Ok(()) }
/// #     fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
/// #         Ok(Box::new(Batch(std::mem::take(&mut self.open), self.rows.clone())))
/// #     }
/// # }
/// # #[async_trait]
/// # impl Delivery for Batch {
/// #     type Output = ();
/// #     async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
/// #         self.1.lock().unwrap().extend(self.0.iter().cloned());
/// #         Ok(Delivered::new(()))
/// #     }
/// # }
///
/// fn text(record: &Record<'_>) -> Result<String, BoxError> {
///     Ok(std::str::from_utf8(record.payload().unwrap_or_default())?.to_owned())
/// }
///
/// let writer = MemoryWriter::default(); // its batches are due after BatchOptions::max_age
/// let rows = writer.rows.clone();
/// let mut driver = Driver::new(Strategy::new().map(text).reduce(writer));
/// driver.pipe(NewRecord::new(0).with_payload("a"));
/// assert!(rows.lock().unwrap().is_empty());
/// assert_eq!(driver.committed(0), None);
/// driver.advance(Duration::from_secs(1));
/// assert_eq!(*rows.lock().unwrap(), ["a"]);
/// assert_eq!(driver.committed(0), Some(1));
/// driver.finish()?;
/// # Ok::<(), kmr_core::Error>(())
/// ```
pub struct Driver {
    /// `None` after its end was reported.
    consumer: Option<JoinHandle<Result<RunReport, Error>>>,
    handle: ConsumerHandle,
    kafka: Arc<DriverKafka>,
    runtime: Runtime,
    /// Notified when every task of the runtime waits.
    idle: Arc<Notify>,
    /// The current time, in milliseconds since the Unix epoch.
    now_millis: i64,
}

impl Driver {
    /// Starts a consumer with the default settings, and the topic `driver`.
    ///
    /// If a stage does not start, [`finish`](Self::finish) returns its error.
    ///
    /// # Panics
    /// The strategy does not fit the default settings. It is called from async code, such as a
    /// `#[tokio::test]`: a driver brings its own runtime. The operating system provides no runtime.
    #[track_caller]
    #[expect(clippy::panic, reason = "a test cannot continue without its driver")]
    pub fn new(strategy: impl IntoPipeline) -> Self {
        match Self::with_settings(strategy, |settings| settings) {
            Ok(driver) => driver,
            Err(error) => panic!("the driver did not start: {}", error_chain(&error)),
        }
    }

    /// Starts a consumer with other settings.
    ///
    /// ```
    /// # use kmr_core::{Error, IntoPipeline, testing::Driver};
    /// # fn example(strategy: impl IntoPipeline) -> Result<Driver, Error> {
    /// Driver::with_settings(strategy, |settings| settings.topics(["orders"]).exactly_once())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`]: a setting cannot work, or the topics are not exactly one name.
    ///
    /// # Panics
    /// It is called from async code, or the operating system provides no runtime.
    #[track_caller]
    pub fn with_settings(
        strategy: impl IntoPipeline,
        settings: impl FnOnce(ConsumerBuilder<Pipeline>) -> ConsumerBuilder<Pipeline>,
    ) -> Result<Self, Error> {
        assert!(
            Handle::try_current().is_err(),
            "a Driver is synchronous: use it in a #[test] that is not async"
        );
        let config = ClientConfig::new().set("bootstrap.servers", "driver:0").set("group.id", "driver");
        let builder = Consumer::builder().topics([TOPIC]).config(config).shutdown_signal(pending());
        let consumer = settings(builder.strategy(strategy)).build()?.committing_at_once();
        let kafka = match consumer.topics() {
            [topic] if !topic.starts_with('^') => DriverKafka::new(topic),
            topics => {
                return Err(Error::Config(format!("topics {topics:?}: a Driver has one topic; name it")));
            }
        };
        let (runtime, idle) = paused_runtime();
        let handle = consumer.handle();
        let run = consumer.run_on(Arc::new(DriverConnector(kafka.clone())), SEED);
        let consumer = Some(runtime.spawn(run));
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let driver = Self { consumer, handle, kafka, runtime, idle, now_millis: millis(since) };
        driver.settle();
        Ok(driver)
    }

    /// Appends a record to its partition and runs the consumer. Returns the record's offset.
    ///
    /// The clock does not move: a batch that is not full stays open. A consumer that has ended does
    /// not read the record.
    ///
    /// # Panics
    /// The partition is negative, or [`finish`](Self::finish) was called.
    #[track_caller]
    pub fn pipe(&mut self, record: NewRecord) -> i64 {
        let offset = self.append(record);
        self.settle();
        offset
    }

    /// Appends records and then runs the consumer, so it fetches them together.
    ///
    /// # Panics
    /// As [`pipe`](Self::pipe).
    #[track_caller]
    pub fn pipe_all(&mut self, records: impl IntoIterator<Item = NewRecord>) {
        for record in records {
            self.append(record);
        }
        self.settle();
    }

    #[track_caller]
    fn append(&mut self, record: NewRecord) -> i64 {
        let partition = record.partition();
        assert!(partition >= 0, "partition {partition} cannot exist; partitions start at 0");
        self.assert_unfinished();
        self.kafka.append(record, self.now_millis)
    }

    /// Moves the clock, and runs what is due until then: batches by their age, retries, timeouts.
    ///
    /// Everything happens at its own time and in order. The clock moves in whole milliseconds: a
    /// fraction counts as one.
    ///
    /// # Panics
    /// [`finish`](Self::finish) was called.
    #[track_caller]
    pub fn advance(&mut self, time: Duration) {
        self.assert_unfinished();
        self.runtime.block_on(async { tokio::time::sleep(time).await });
        self.settle();
        self.now_millis = self.now_millis.saturating_add(millis(time));
    }

    /// The offset that is committed for a partition: that of the next record to read. `None`:
    /// nothing was committed.
    pub fn committed(&self, partition: i32) -> Option<i64> {
        self.kafka.committed(partition)
    }

    /// Whether the consumer has ended, because it failed or was stopped. [`finish`](Self::finish)
    /// returns the reason.
    pub fn has_ended(&self) -> bool {
        self.consumer.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The handle of the consumer: its counters, its health, pauses. The consumer carries out its
    /// requests at the next call of the driver.
    pub fn handle(&self) -> ConsumerHandle {
        self.handle.clone()
    }

    /// Ends the consumer in order, as at a shutdown: it delivers and commits open batches. The
    /// clock moves as far as that takes, up to the drain timeout and some seconds.
    ///
    /// # Errors
    /// The reason why the consumer ended, or did not start. [`Error::Unfinished`]: some records
    /// were not finished within the drain timeout.
    ///
    /// # Panics
    /// It was called before.
    #[track_caller]
    pub fn finish(&mut self) -> Result<RunReport, Error> {
        self.assert_unfinished();
        self.handle.stop();
        let Some(consumer) = self.consumer.take() else { return Err(ended("before")) };
        self.runtime.block_on(consumer).unwrap_or_else(|error| Err(ended(&error.to_string())))
    }

    /// Runs the consumer until every task waits.
    fn settle(&self) {
        self.runtime.block_on(self.idle.notified());
    }

    #[track_caller]
    fn assert_unfinished(&self) {
        assert!(self.consumer.is_some(), "the Driver was finished: its consumer has ended");
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("has_ended", &self.has_ended()).finish_non_exhaustive()
    }
}

fn ended(how: &str) -> Error {
    Error::Internal { message: format!("the consumer of a Driver ended: {how}") }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A runtime of one thread with a paused clock, and the notification that all its tasks wait.
#[track_caller]
#[expect(clippy::panic, reason = "a test cannot continue without its driver")]
fn paused_runtime() -> (Runtime, Arc<Notify>) {
    let idle = Arc::new(Notify::new());
    let notify = idle.clone();
    let mut builder = Builder::new_current_thread();
    // The thread parks when no task is ready. The hook makes a step's future ready first, and then
    // Tokio does not move the clock.
    builder.enable_all().start_paused(true).on_thread_park(move || notify.notify_waiters());
    match builder.build() {
        Ok(runtime) => (runtime, idle),
        Err(error) => panic!("the driver's runtime did not start: {error}"),
    }
}
