//! kmr in measurements other than throughput: a live tail, a stalled sink, no new records, one
//! member of several.

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use kmr_core::{
    BoxError, ConsumerBuilder, ConsumerHandle, Pipeline, RebalanceEvent, Record, processing_strategy,
};
use serde::{Deserialize, Serialize};

use super::kmr::{builder, seen};
use super::reducers::{Ages, Drop, MeasureAges, Stall, Timed};
use crate::shared::clock::process_cpu;
use crate::shared::job::Job;
use crate::shared::meter::peak_bytes;
use crate::shared::rows::Seen;

/// The line that a consumer prints when partitions are assigned.
pub(crate) const READY: &str = "ready";

/// After this long without a new record, a consumer with a stalled sink is full.
const QUIET: Duration = Duration::from_secs(3);

/// Time from the last record to the start of the idle measurement, and its length.
const SETTLE: Duration = Duration::from_secs(4);
const IDLE: Duration = Duration::from_secs(10);

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The last line of these processes' output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LiveRun {
    /// Number of mapped records.
    pub(crate) records: u64,
    /// User and system time since the start, or for an idle consumer during the measurement.
    pub(crate) cpu: Duration,
    /// Length of the measurement of an idle consumer.
    pub(crate) observed: Duration,
    pub(crate) peak_bytes: u64,
    /// Latencies from producer to reducer, if they were measured.
    pub(crate) ages: Option<Ages>,
}

impl LiveRun {
    fn new(records: u64) -> Result<Self> {
        let peak_bytes = peak_bytes()?;
        Ok(Self { records, cpu: process_cpu(), observed: Duration::ZERO, peak_bytes, ages: None })
    }

    fn print(&self) -> Result<()> {
        Ok(std::io::stdout().write_all(format!("{}\n", serde_json::to_string(self)?).as_bytes())?)
    }
}

/// Consumes while records are produced, until all of them are mapped.
pub(crate) async fn tail(job: &Job) -> Result<()> {
    let ages = Arc::new(Mutex::new(Ages::new()));
    let strategy = processing_strategy!({ map => timed, reduce => MeasureAges::new(ages.clone()) });
    let consumer = announcing(builder(job, strategy)).build()?;
    let stop = tokio::spawn(stop_at(consumer.handle(), job.records));
    let report = consumer.run().await?;
    stop.abort();
    let ages = ages.lock().unwrap_or_else(PoisonError::into_inner).clone();
    LiveRun { ages: Some(ages), ..LiveRun::new(report.stats.records)? }.print()
}

/// Consumes until the memory budget is full.
pub(crate) async fn stalled(job: &Job) -> Result<()> {
    let strategy = processing_strategy!({ map => payload, reduce => Stall::new() });
    let consumer = builder(job, strategy).build()?;
    let handle = consumer.handle();
    let _running = tokio::spawn(consumer.run());
    let mut last = (0, Instant::now());
    while last.0 == 0 || last.1.elapsed() < QUIET {
        tokio::time::sleep(POLL_INTERVAL).await;
        let records = handle.stats().records;
        if records != last.0 {
            last = (records, Instant::now());
        }
    }
    LiveRun::new(last.0)?.print()?;
    // A stalled consumer does not end in order.
    std::process::exit(0);
}

/// Consumes a few records, and measures the time after them.
pub(crate) async fn idle(job: &Job) -> Result<()> {
    let consumer =
        builder(job, processing_strategy!({ map => seen, reduce => Drop::<Seen>::new() })).build()?;
    let handle = consumer.handle();
    let running = tokio::spawn(consumer.run());
    while handle.stats().records < job.records {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    tokio::time::sleep(SETTLE).await;
    let (before, started) = (process_cpu(), Instant::now());
    tokio::time::sleep(IDLE).await;
    let run =
        LiveRun { cpu: process_cpu() - before, observed: started.elapsed(), ..LiveRun::new(job.records)? };
    handle.stop();
    running.await??;
    run.print()
}

/// Runs one of several consumers of a group, until SIGTERM.
pub(crate) async fn member(job: &Job) -> Result<()> {
    let strategy = processing_strategy!({ map => seen, reduce => Drop::<Seen>::new() });
    let report = announcing(builder(job, strategy)).build()?.run().await?;
    LiveRun::new(report.stats.records)?.print()
}

/// Prints a line when partitions are assigned.
fn announcing(builder: ConsumerBuilder<Pipeline>) -> ConsumerBuilder<Pipeline> {
    builder.on_rebalance(|event| {
        if matches!(event, RebalanceEvent::Assigned(_)) {
            // A closed pipe is no reason to stop.
            let _ = std::io::stdout().write_all(format!("{READY}\n").as_bytes());
        }
    })
}

async fn stop_at(handle: ConsumerHandle, records: u64) {
    while handle.stats().records < records {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    handle.stop();
}

fn timed(record: &Record<'_>) -> Result<Timed, BoxError> {
    Ok(Timed { row: seen(record)?, produced: record.timestamp_millis().ok_or("no timestamp")? })
}

fn payload(record: &Record<'_>) -> Result<Vec<u8>, BoxError> {
    Ok(record.payload().ok_or("a tombstone")?.to_vec())
}
