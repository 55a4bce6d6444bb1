//! A live topic: 50,000 records a second, and how long each takes from the producer to the reducer. The first tenth of them does not
//! count: the producer connects meanwhile, for a second or so, and its records wait in front of it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{Deadline, Message, wait_until};

use super::Line;
use crate::contenders::Contender;
use crate::contenders::live::{Lived, READY};
use crate::contenders::reducers::UNTIMED;
use crate::options::Options;
use crate::payload::payload;
use crate::servers::{Servers, said};
use crate::shared::job::Work;

const RATE: u64 = 50_000;
const SECONDS: u64 = 20;
const SMOKE_SECONDS: u64 = 2;

/// Records that are made between two looks at the clock: a millisecond's worth.
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
    let began = Instant::now();
    topic.produce(paced(records, options.partitions)).await?;
    let rate = records as f64 / began.elapsed().as_secs_f64();
    let lived: Lived = said(consumer).await?;
    ensure!(lived.records == records, "{} of {records} records", lived.records);
    let ages = lived.ages.context("no ages")?;
    topic.delete().await?;
    Ok(vec![
        Line::new("produced", rate, "records/s"),
        Line::new("CPU-s per million", lived.cpu.as_secs_f64() * 1e6 / records as f64, "").at_most(0.8),
        Line::new("latency from produce to reducer, median", ages.percentile(0.5) as f64, "ms"),
        Line::new("latency from produce to reducer, p99", ages.percentile(0.99) as f64, "ms").at_most(250.0),
        Line::new("latency from produce to reducer, p99.9", ages.percentile(0.999) as f64, "ms"),
        Line::new("peak resident", lived.peak_bytes as f64 / 1e6, "MB"),
    ])
}

/// The benchmark's records, none before its time, each with the time at which it was made; without one in the first tenth.
fn paced(records: u64, partitions: i32) -> impl Iterator<Item = Message> + Send + 'static {
    let spread = u64::from(partitions.unsigned_abs().max(1));
    let began = Instant::now();
    (0..records).map(move |n| {
        if n % STEP == 0 {
            let due = Duration::from_secs_f64(n as f64 / RATE as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let made = if n < records / 10 { UNTIMED } else { i64::try_from(now).unwrap_or_default() };
        Message::new(payload(n)).partition(i32::try_from(n % spread).unwrap_or_default()).timestamp(made)
    })
}
