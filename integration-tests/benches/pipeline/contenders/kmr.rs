//! kmr with its defaults, except for the batch options.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use kmr_core::{
    BoxError, ClientConfig, Consumer, ConsumerBuilder, ConsumerHandle, IntoPipeline, MetricsFormat, Pipeline,
    Record, ResetPolicy, processing_strategy,
};
use kmr_sinks::clickhouse::{ClickHouseWriter, Compression, Row};
use serde::Serialize;
use tokio::task::JoinHandle;

use super::reducers::Drop;
use crate::shared::job::{BATCH_AGE, BATCH_ROWS, Job, Work};
use crate::shared::meter::Meter;
use crate::shared::rows::{self, Metric, Seen};

/// Interval between two reads of the statistics.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Interval between two scrapes.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);

/// W1 or W2 without a sink.
pub(crate) async fn drop_rows(job: &Job) -> Result<()> {
    match job.work {
        Work::W1 => {
            let strategy = processing_strategy!({ map => seen, reduce => Drop::<Seen>::new() });
            run(job, builder(job, strategy)).await
        }
        Work::W2 => {
            let strategy = processing_strategy!({ map => metric, reduce => Drop::<Metric>::new() });
            run(job, builder(job, strategy)).await
        }
    }
}

/// W1 without a sink, with metrics that are scraped once a second.
pub(crate) async fn drop_rows_with_metrics(job: &Job) -> Result<()> {
    let strategy = processing_strategy!({ map => seen, reduce => Drop::<Seen>::new() });
    let builder = builder(job, strategy).record_metrics(true);
    run_watched(job, builder, |handle| {
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SCRAPE_INTERVAL).await;
                std::hint::black_box(handle.metrics(MetricsFormat::Prometheus).await);
            }
        })
    })
    .await
}

/// W1 or W2 into ClickHouse.
pub(crate) async fn insert(job: &Job) -> Result<()> {
    run(job, inserting(job)).await
}

/// W1 or W2 into ClickHouse, in exactly-once mode.
pub(crate) async fn insert_exactly_once(job: &Job) -> Result<()> {
    run(job, inserting(job).exactly_once()).await
}

fn inserting(job: &Job) -> ConsumerBuilder<Pipeline> {
    match job.work {
        Work::W1 => builder(job, processing_strategy!({ map => seen, reduce => writer::<Seen>(job) })),
        Work::W2 => builder(job, processing_strategy!({ map => metric, reduce => writer::<Metric>(job) })),
    }
}

/// A consumer of the job's topic, from its start.
pub(crate) fn builder(job: &Job, strategy: impl IntoPipeline) -> ConsumerBuilder<Pipeline> {
    let config = ClientConfig::new().set("bootstrap.servers", &job.broker).set("group.id", &job.group);
    Consumer::builder()
        .topics([&job.topic])
        .config(config)
        .offset_reset_policy(ResetPolicy::Earliest)
        .record_metrics(false)
        .strategy(strategy)
}

async fn run(job: &Job, builder: ConsumerBuilder<Pipeline>) -> Result<()> {
    run_watched(job, builder, |_| tokio::spawn(async {})).await
}

/// Runs the consumer with another task beside it.
async fn run_watched(
    job: &Job,
    builder: ConsumerBuilder<Pipeline>,
    beside: impl FnOnce(ConsumerHandle) -> JoinHandle<()>,
) -> Result<()> {
    let consumer = builder.build()?;
    let beside = beside(consumer.handle());
    let meter = Arc::new(Mutex::new(Meter::new(job.records, Duration::ZERO)));
    let watch = tokio::spawn(watch(consumer.handle(), job.records, meter.clone()));
    let report = consumer.run().await?;
    watch.abort();
    beside.abort();
    let mut meter = meter.lock().unwrap_or_else(PoisonError::into_inner);
    meter.reached(report.stats.rows.get("reduce 1").copied().unwrap_or_default());
    meter.print()
}

/// Updates the meter, and stops the consumer when all records are mapped. The stop delivers the
/// last batch before its age is reached.
async fn watch(handle: ConsumerHandle, records: u64, meter: Arc<Mutex<Meter>>) {
    let (mut ticks, mut stopped) = (tokio::time::interval(POLL_INTERVAL), false);
    loop {
        ticks.tick().await;
        let stats = handle.stats();
        let rows = stats.rows.get("reduce 1").copied().unwrap_or_default();
        meter.lock().unwrap_or_else(PoisonError::into_inner).reached(rows);
        // A second stop would force the end.
        if stats.records >= records && !stopped {
            handle.stop();
            stopped = true;
        }
    }
}

/// W1's map.
pub(crate) fn seen(record: &Record<'_>) -> Result<Seen, BoxError> {
    let payload = record.payload().ok_or("a tombstone")?;
    Ok(rows::seen(record.partition(), record.offset(), payload)?)
}

fn metric(record: &Record<'_>) -> Result<Metric, BoxError> {
    Ok(rows::metric(record.payload().ok_or("a tombstone")?)?)
}

fn writer<R: Row + Serialize + Send + 'static>(job: &Job) -> ClickHouseWriter<R> {
    let compression = if job.lz4 { Compression::Lz4 } else { Compression::None };
    ClickHouseWriter::<R>::new(&job.url, &job.table)
        .database(&job.database)
        .compression(compression)
        .max_rows(BATCH_ROWS)
        .max_age(BATCH_AGE)
}
