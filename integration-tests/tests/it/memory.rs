//! Back-pressure: with a stalled sink, memory stays below the memory budget + 100 MB at any lag.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration_tests::consumer::{Event, RowKind, SinkKind};
use integration_tests::{
    Deadline, Message, Process, Produced, Signal, log_line, records, test_name, wait_until,
};

use crate::scene::{Scene, TABLE, alive, cases, in_turn, start, start_with_jemalloc};

/// kmr's default, by `Settings::new`.
const BUDGET: u64 = 64 << 20;
const ALLOWED: u64 = BUDGET + 100_000_000;

/// The consumer is full when it holds at least this much and accepts no more. librdkafka has a
/// quarter of the budget. Of the rest, each partition's fair share bounds its unmapped records.
const GRAPH: u64 = BUDGET / 8 * 3;

/// After this long without a new record the consumer is full.
const QUIET: Duration = Duration::from_secs(3);

#[tokio::test]
async fn the_budget_bounds_resident_memory() -> Result<()> {
    in_turn(cases![
        small_records_on_1_partition_stay_within_the_budget,
        small_records_on_64_partitions_stay_within_the_budget,
        large_records_on_1_partition_stay_within_the_budget,
        large_records_on_64_partitions_stay_within_the_budget,
    ])
    .await
}

async fn small_records_on_1_partition_stay_within_the_budget() -> Result<()> {
    stalled(test_name!(), 1, small(1)).await
}

async fn small_records_on_64_partitions_stay_within_the_budget() -> Result<()> {
    stalled(test_name!(), 64, small(64)).await
}

async fn large_records_on_1_partition_stay_within_the_budget() -> Result<()> {
    stalled(test_name!(), 1, large(1)).await
}

async fn large_records_on_64_partitions_stay_within_the_budget() -> Result<()> {
    stalled(test_name!(), 64, large(64)).await
}

/// 2 million records of 200 B.
fn small(partitions: u64) -> impl Iterator<Item = Message> + Send + 'static {
    let mut random = Random::new();
    (0..2_000_000).map(move |n| random.message(200).partition((n % partitions) as i32))
}

/// Records of 5 MB: 2,000 in a soak run, otherwise several for each of 64 partitions, or six times
/// the budget.
fn large(partitions: u64) -> impl Iterator<Item = Message> + Send + 'static {
    let mut random = Random::new();
    let count = records(if partitions == 1 { 80 } else { 3 * partitions }, 2_000);
    (0..count).map(move |n| random.message(5_000_000).partition((n % partitions) as i32))
}

/// Incompressible bytes, cut from one pool, because generating ten gigabytes takes longer than
/// producing them.
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
    // Rows carry the whole payload, so that the sink holds as many bytes as the budget admits.
    let mut scene = Scene::new(name, partitions, RowKind::Payload).await?;
    let produced = scene.topic.produce(messages).await?;
    let mut settings = scene.settings();
    settings.sink = SinkKind::Stalled;
    let mut consumer = start(&settings)?;
    let system = full(&consumer, produced.total()).await?;
    consumer.end(Signal::Kill, Deadline::seconds(10)).await?;
    ensure!(
        scene.rows().await? == 0 && scene.committed().await? == 0,
        "a stalled sink stores and commits nothing"
    );
    system.check()?;

    // The released sink is measured with jemalloc, which can be set to keep no freed memory. Under
    // load glibc keeps as much again as is in use. By default jemalloc keeps memory freed in the
    // last ten seconds.
    scene.group.push_str("_2");
    settings.group.clone_from(&scene.group);
    let mut consumer = start_with_jemalloc(&settings)?;
    let jemalloc = full(&consumer, produced.total()).await?;
    consumer.signal(Signal::Continue)?;
    scene.all_committed(&consumer, delivered_by(&produced)).await?;
    let flowing = Peak { bytes: consumer.peak_resident_bytes()?, ..jemalloc };
    consumer.end(Signal::Terminate, Deadline::seconds(30)).await?;
    log_line(format_args!(
        "memory, {name}: peak {system} (system's allocator), {jemalloc} (jemalloc), {flowing} after the sink is released; \
         allowed {} MB",
        ALLOWED / 1_000_000
    ));
    jemalloc.check()?;
    flowing.check()?;
    let duplicates = scene.nothing_is_missing(&produced).await?;
    ensure!(duplicates == 0, "{duplicates} rows are duplicates");
    // Frees gigabytes for the tests after this one.
    scene.topic.delete().await?;
    Ok(scene.database.exec(&format!("DROP TABLE {TABLE} SYNC")).await?)
}

/// Allows for a slow machine: 10,000 records, or 20 MB, per second.
fn delivered_by(produced: &Produced) -> Deadline {
    let megabytes = if produced.total() < 100_000 { produced.total() * 5 } else { 0 };
    Deadline::seconds(120 + produced.total() / 10_000 + megabytes / 20)
}

/// Peak resident memory of a consumer, and the bytes of the budget in use.
#[derive(Clone, Copy, Debug)]
struct Peak {
    bytes: u64,
    held: u64,
}

impl Peak {
    fn check(self) -> Result<()> {
        ensure!(self.bytes <= ALLOWED, "peak memory {self} is above the limit of {ALLOWED} bytes");
        ensure!(
            self.held <= BUDGET + 5_000_000,
            "one admission point (M1): {self} exceeds the memory budget by more than one record"
        );
        Ok(())
    }
}

impl std::fmt::Display for Peak {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} MB with {} MB held", self.bytes / 1_000_000, self.held / 1_000_000)
    }
}

/// Waits until the consumer accepts no more records despite the lag, and returns its peak.
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
    ensure!(last.0 < lag, "all {lag} records fit into the budget: no back-pressure was tested");
    Ok(Peak { bytes: consumer.peak_resident_bytes()?, held })
}
