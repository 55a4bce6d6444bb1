//! kmr where what counts is not how fast it gets through a topic: a live tail, a stalled sink, nothing to do, one member of several.

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use kmr_core::{
    BoxError, ConsumerBuilder, ConsumerHandle, Pipeline, RebalanceEvent, Record, processing_strategy,
};
use serde::{Deserialize, Serialize};

use super::kmr::{builder, seen};
use super::reducers::{Ages, Drop, Stall, Timed, Watch};
use crate::shared::clock::process_cpu;
use crate::shared::job::Job;
use crate::shared::meter::peak_bytes;
use crate::shared::rows::Seen;

/// What a consumer writes when its first partitions are assigned.
pub(crate) const READY: &str = "ready";

/// No new record for so long: a consumer whose sink stands still holds all that it will.
const QUIET: Duration = Duration::from_secs(3);

/// From the last record to the beginning of idleness, and how long that is looked at.
const SETTLE: Duration = Duration::from_secs(4);
const IDLE: Duration = Duration::from_secs(10);

const LOOK: Duration = Duration::from_millis(50);

/// What these processes print last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Lived {
    /// Records that were mapped.
    pub(crate) records: u64,
    /// User and system time: since its start, but of an idle consumer only while it was idle.
    pub(crate) cpu: Duration,
    /// How long an idle consumer was looked at.
    pub(crate) watched: Duration,
    pub(crate) peak_bytes: u64,
    /// From produce to reducer, where that was looked at.
    pub(crate) ages: Option<Ages>,
}

impl Lived {
    fn new(records: u64) -> Result<Self> {
        let peak_bytes = peak_bytes()?;
        Ok(Self { records, cpu: process_cpu(), watched: Duration::ZERO, peak_bytes, ages: None })
    }

    fn print(&self) -> Result<()> {
        Ok(std::io::stdout().write_all(format!("{}\n", serde_json::to_string(self)?).as_bytes())?)
    }
}

/// Reads what is being produced, until all records are there.
pub(crate) async fn tail(job: &Job) -> Result<()> {
    let ages = Arc::new(Mutex::new(Ages::new()));
    let strategy = processing_strategy!({ map => timed, reduce => Watch::new(ages.clone()) });
    let consumer = telling(builder(job, strategy)).build()?;
    let watch = tokio::spawn(stop_at(consumer.handle(), job.records));
    let report = consumer.run().await?;
    watch.abort();
    let ages = ages.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Lived { ages: Some(ages), ..Lived::new(report.stats.records)? }.print()
}

/// Reads until the budget is full.
pub(crate) async fn stalled(job: &Job) -> Result<()> {
    let strategy = processing_strategy!({ map => payload, reduce => Stall::new() });
    let consumer = builder(job, strategy).build()?;
    let handle = consumer.handle();
    let _running = tokio::spawn(consumer.run());
    let mut last = (0, Instant::now());
    while last.0 == 0 || last.1.elapsed() < QUIET {
        tokio::time::sleep(LOOK).await;
        let records = handle.stats().records;
        if records != last.0 {
            last = (records, Instant::now());
        }
    }
    Lived::new(last.0)?.print()?;
    // What is stalled does not end in order.
    std::process::exit(0);
}

/// Reads a few records, and is looked at when there is nothing more to do.
pub(crate) async fn idle(job: &Job) -> Result<()> {
    let consumer =
        builder(job, processing_strategy!({ map => seen, reduce => Drop::<Seen>::new() })).build()?;
    let handle = consumer.handle();
    let running = tokio::spawn(consumer.run());
    while handle.stats().records < job.records {
        tokio::time::sleep(LOOK).await;
    }
    tokio::time::sleep(SETTLE).await;
    let (before, began) = (process_cpu(), Instant::now());
    tokio::time::sleep(IDLE).await;
    let lived = Lived { cpu: process_cpu() - before, watched: began.elapsed(), ..Lived::new(job.records)? };
    handle.stop();
    running.await??;
    lived.print()
}

/// One of several consumers of a group, until SIGTERM.
pub(crate) async fn member(job: &Job) -> Result<()> {
    let strategy = processing_strategy!({ map => seen, reduce => Drop::<Seen>::new() });
    let report = telling(builder(job, strategy)).build()?.run().await?;
    Lived::new(report.stats.records)?.print()
}

/// Says when it is assigned something.
fn telling(builder: ConsumerBuilder<Pipeline>) -> ConsumerBuilder<Pipeline> {
    builder.on_rebalance(|event| {
        if matches!(event, RebalanceEvent::Assigned(_)) {
            // A pipe that nobody reads is no reason to stop.
            let _ = std::io::stdout().write_all(format!("{READY}\n").as_bytes());
        }
    })
}

async fn stop_at(handle: ConsumerHandle, records: u64) {
    while handle.stats().records < records {
        tokio::time::sleep(LOOK).await;
    }
    handle.stop();
}

fn timed(record: &Record<'_>) -> Result<Timed, BoxError> {
    Ok(Timed { row: seen(record)?, produced: record.timestamp_millis().ok_or("no timestamp")? })
}

fn payload(record: &Record<'_>) -> Result<Vec<u8>, BoxError> {
    Ok(record.payload().ok_or("a tombstone")?.to_vec())
}
