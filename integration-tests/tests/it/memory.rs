//! Back-pressure: with a sink that takes nothing, memory stays under the byte budget + 100 MB, however much waits in Kafka.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration_tests::consumer::{Event, RowKind, SinkKind};
use integration_tests::{Deadline, Message, Process, Produced, Signal, records, say, test_name, wait_until};

use crate::scene::{Scene, TABLE, alive, alone, start, start_with_jemalloc};

/// kmr's default, by `Settings::new`.
const BUDGET: u64 = 64 << 20;
const ALLOWED: u64 = BUDGET + 100_000_000;

/// A quarter of the budget is librdkafka's; of the rest, records that are not mapped yet take as much as their partitions' shares allow. The
/// consumer is full when it holds at least this and takes nothing more.
const GRAPH: u64 = BUDGET / 8 * 3;

/// After this long without a new record the consumer holds all that it will.
const QUIET: Duration = Duration::from_secs(3);

#[tokio::test]
async fn small_records_on_1_partition_stay_within_the_budget() -> Result<()> {
    stalled(test_name!(), 1, small(1)).await
}

#[tokio::test]
async fn small_records_on_64_partitions_stay_within_the_budget() -> Result<()> {
    stalled(test_name!(), 64, small(64)).await
}

#[tokio::test]
async fn large_records_on_1_partition_stay_within_the_budget() -> Result<()> {
    stalled(test_name!(), 1, large(1)).await
}

#[tokio::test]
async fn large_records_on_64_partitions_stay_within_the_budget() -> Result<()> {
    stalled(test_name!(), 64, large(64)).await
}

/// 2 million records of 200 B.
fn small(partitions: u64) -> impl Iterator<Item = Message> + Send + 'static {
    let mut random = Random::new();
    (0..2_000_000).map(move |n| random.message(200).partition((n % partitions) as i32))
}

/// Records of 5 MB: 2,000 in a soak run; else enough for several in each of 64 partitions, or for six times the budget.
fn large(partitions: u64) -> impl Iterator<Item = Message> + Send + 'static {
    let mut random = Random::new();
    let count = records(if partitions == 1 { 80 } else { 3 * partitions }, 2_000);
    (0..count).map(move |n| random.message(5_000_000).partition((n % partitions) as i32))
}

/// Bytes that do not compress, cut from one pool: making ten gigabytes of them takes longer than producing them.
struct Random {
    pool: Vec<u8>,
}

impl Random {
    fn new() -> Self {
        Self { pool: std::iter::repeat_with(|| fastrand::u8(..)).take(8_000_000).collect() }
    }

    fn message(&mut self, size: usize) -> Message {
        let at = fastrand::usize(..self.pool.len() - size);
        Message::new(&self.pool[at..at + size])
    }
}

async fn stalled(
    name: &str,
    partitions: i32,
    messages: impl Iterator<Item = Message> + Send + 'static,
) -> Result<()> {
    let _alone = alone().await;
    // Rows carry the whole payload: the sink holds as many bytes as the budget lets in.
    let mut scene = Scene::new(name, partitions, RowKind::Payload).await?;
    let produced = scene.topic.produce(messages).await?;
    let mut settings = scene.settings();
    settings.sink = SinkKind::Stalled;
    let mut consumer = start(&settings)?;
    let system = full(&consumer, produced.total()).await?;
    consumer.end(Signal::Kill, Deadline::seconds(10)).await?;
    ensure!(scene.rows().await? == 0 && scene.committed().await? == 0, "the sink is not stalled");
    system.check()?;

    // Released, on the allocator of kmr's own programs, which can be told to keep nothing that was freed: under load glibc's
    // keeps as much again as is held, and jemalloc by default what was freed in the last ten seconds.
    scene.group.push_str("_2");
    settings.group.clone_from(&scene.group);
    let mut consumer = start_with_jemalloc(&settings)?;
    let jemalloc = full(&consumer, produced.total()).await?;
    consumer.signal(Signal::Continue)?;
    scene.all_committed(&consumer, delivered_by(&produced)).await?;
    let flowing = Peak { bytes: consumer.peak_resident_bytes()?, ..jemalloc };
    consumer.end(Signal::Terminate, Deadline::seconds(30)).await?;
    say(format_args!(
        "memory, {name}: peak {system} (system's allocator), {jemalloc} (jemalloc), {flowing} once the sink takes all; \
         allowed {} MB",
        ALLOWED / 1_000_000
    ));
    jemalloc.check()?;
    flowing.check()?;
    everything_arrived(&scene, &produced).await?;
    // Gigabytes that the tests after this one do not need.
    scene.topic.delete().await?;
    scene.database.exec(&format!("DROP TABLE {TABLE} SYNC")).await
}

/// Room for a slow machine: 10,000 records, or 20 MB, a second.
fn delivered_by(produced: &Produced) -> Deadline {
    let megabytes = if produced.total() < 100_000 { produced.total() * 5 } else { 0 };
    Deadline::seconds(120 + produced.total() / 10_000 + megabytes / 20)
}

/// The most resident memory that a consumer has had, and what it holds of the budget.
#[derive(Clone, Copy, Debug)]
struct Peak {
    bytes: u64,
    held: u64,
}

impl Peak {
    fn check(self) -> Result<()> {
        ensure!(self.bytes <= ALLOWED, "peak: {self}, {ALLOWED} bytes are allowed");
        ensure!(self.held <= BUDGET + 5_000_000, "{self}: one record more than the budget at most");
        Ok(())
    }
}

impl std::fmt::Display for Peak {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} MB with {} MB held", self.bytes / 1_000_000, self.held / 1_000_000)
    }
}

/// Waits until the consumer takes nothing more although there is more, and returns its peak.
async fn full(consumer: &Process, lag: u64) -> Result<Peak> {
    let mut last = (0, Instant::now());
    let mut held = 0;
    wait_until(Deadline::seconds(60), "the consumer is full", async || {
        alive(consumer)?;
        let Some(Event::Progress { records, bytes_held, .. }) = Event::last(consumer) else {
            return Ok(false);
        };
        if records != last.0 {
            last = (records, Instant::now());
        }
        held = bytes_held;
        Ok(bytes_held >= GRAPH && last.1.elapsed() >= QUIET)
    })
    .await
    .map_err(|error| error.context(format!("the consumer's standard error:\n{}", consumer.stderr())))?;
    ensure!(last.0 < lag, "all {lag} records fitted in: no lag is left to press");
    Ok(Peak { bytes: consumer.peak_resident_bytes()?, held })
}

async fn everything_arrived(scene: &Scene, produced: &Produced) -> Result<()> {
    let doubles = scene.nothing_is_missing(produced).await?;
    ensure!(doubles == 0, "{doubles} rows are double");
    Ok(())
}
