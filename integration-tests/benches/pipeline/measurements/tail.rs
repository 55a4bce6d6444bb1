//! Measures the latency from producer to reducer in a live topic of 50,000 records per second.
//!
//! The first tenth does not count, because its records wait until the producer has connected.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{Deadline, Message, wait_until};

use super::Line;
use crate::contenders::Contender;
use crate::contenders::live::{LiveRun, READY};
use crate::contenders::reducers::UNTIMED;
use crate::options::Options;
use crate::payload::payload;
use crate::servers::{Servers, output};
use crate::shared::job::Work;

const RATE: u64 = 50_000;
const SECONDS: u64 = 20;
const SMOKE_SECONDS: u64 = 2;

/// Records between two reads of the clock: one millisecond.
const STEP: u64 = RATE / 1_000;

pub(super) async fn run(options: &Options, servers: &Servers) -> Result<Vec<Line>> {
    let records = RATE * if options.smoke { SMOKE_SECONDS } else { SECONDS };
    let topic = servers.kafka.create_topic("bench_tail", options.partitions).await?;
    let job = servers.job(Work::W1, topic.name(), records, options.lz4());
    let consumer = servers.spawn(Contender::KmrTail, &job)?;
    wait_until(Deadline::seconds(60), "partitions are assigned", async || {
        Ok(consumer.stdout().contains(READY))
    })
    .await?;
    let started = Instant::now();
    topic.produce(paced(records, options.partitions)).await?;
    let rate = records as f64 / started.elapsed().as_secs_f64();
    let run: LiveRun = output(consumer).await?;
    ensure!(run.records == records, "{} of {records} records are mapped", run.records);
    let ages = run.ages.context("the consumer reported no ages")?;
    topic.delete().await?;
    Ok(vec![
        Line::new("produced", rate, "records/s"),
        Line::new("CPU-s per million", run.cpu.as_secs_f64() * 1e6 / records as f64, "").at_most(0.8),
        Line::new("latency from produce to reducer, median", ages.percentile(0.5) as f64, "ms"),
        Line::new("latency from produce to reducer, p99", ages.percentile(0.99) as f64, "ms").at_most(250.0),
        Line::new("latency from produce to reducer, p99.9", ages.percentile(0.999) as f64, "ms"),
        Line::new("peak resident", run.peak_bytes as f64 / 1e6, "MB"),
    ])
}

/// Yields the benchmark's records at [`RATE`], each with its time as timestamp, except for the
/// first tenth.
fn paced(records: u64, partitions: i32) -> impl Iterator<Item = Message> + Send + 'static {
    let spread = u64::from(partitions.unsigned_abs().max(1));
    let started = Instant::now();
    (0..records).map(move |n| {
        if n % STEP == 0 {
            let due = Duration::from_secs_f64(n as f64 / RATE as f64);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let timestamp = if n < records / 10 { UNTIMED } else { i64::try_from(now).unwrap_or_default() };
        Message::new(payload(n)).partition(i32::try_from(n % spread).unwrap_or_default()).timestamp(timestamp)
    })
}
