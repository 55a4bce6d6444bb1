//! kmr with its defaults, except for the batch options.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use kmr_core::fold::{Count, Max, Merge as _, Sum};
use kmr_core::{
    BoxError, ClientConfig, Consumer, ConsumerBuilder, ConsumerHandle, Fold, IntoPipeline, MetricsFormat,
    Pipeline, Record, ResetPolicy, Stats, processing_strategy,
};
use kmr_sinks::clickhouse::{ClickHouseRow, ClickHouseWriter, Compression, JsonRow, Row};
use serde::Serialize;
use tokio::task::JoinHandle;

use super::forward::Forward;
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
    run_watched(job, builder, acknowledged, |handle| {
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
    run(job, inserting(job, BATCH_ROWS)).await
}

/// W1 or W2 into ClickHouse, in exactly-once mode.
pub(crate) async fn insert_exactly_once(job: &Job, max_rows: usize) -> Result<()> {
    run(job, inserting(job, max_rows).exactly_once()).await
}

/// Keys of W4.
pub(crate) const KEYS: u32 = 1_000;

/// W4: W2's records of a key in a batch.
#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
struct Folded {
    org_id: u32,
    records: Count,
    value: Sum<f64>,
    highest: Max<f64>,
}

/// W2's decoding, and one row per key and batch into ClickHouse.
pub(crate) async fn insert_folded(job: &Job) -> Result<()> {
    let row = |Metric { org_id, value, .. }: Metric| Folded {
        org_id: org_id % KEYS,
        records: Count::ONE,
        value: Sum(value),
        highest: Max(value),
    };
    let merge = |row: &mut Folded, later: Folded| {
        row.records.merge(later.records);
        row.value.merge(later.value);
        row.highest.merge(later.highest);
    };
    let fold = Fold::by_key(|metric: &Metric| metric.org_id % KEYS, row, merge);
    let strategy = processing_strategy!({ map => metric, reduce => fold.into(writer::<Folded>(job)) });
    // Batches are too large for a rate by acknowledged records.
    run_watched(job, builder(job, strategy), |stats| stats.records, |_| tokio::spawn(async {})).await
}

/// W3: W2's records into its table, without a struct.
pub(crate) async fn insert_json(job: &Job) -> Result<()> {
    let strategy = processing_strategy!({ map => JsonRow::from_record, reduce => batches(ClickHouseWriter::<JsonRow>::new(&job.url, &job.table), job) });
    run(job, builder(job, strategy)).await
}

/// W2's records into its table, as lines of JSON that the server parses.
pub(crate) async fn forward(job: &Job) -> Result<()> {
    let nothing = |_: &Record<'_>| Ok::<_, BoxError>(());
    run(job, builder(job, processing_strategy!({ map => nothing, reduce => Forward::new(job) }))).await
}

fn inserting(job: &Job, max_rows: usize) -> ConsumerBuilder<Pipeline> {
    match job.work {
        Work::W1 => {
            let writer = writer::<Seen>(job).max_rows(max_rows);
            builder(job, processing_strategy!({ map => seen, reduce => writer }))
        }
        Work::W2 => {
            let writer = writer::<Metric>(job).max_rows(max_rows);
            builder(job, processing_strategy!({ map => metric, reduce => writer }))
        }
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
    run_watched(job, builder, acknowledged, |_| tokio::spawn(async {})).await
}

/// The records that the sink has acknowledged.
fn acknowledged(stats: &Stats) -> u64 {
    stats.rows.get("reduce 1").copied().unwrap_or_default()
}

/// Runs the consumer with another task beside it. `progress`: the records that are done.
async fn run_watched(
    job: &Job,
    builder: ConsumerBuilder<Pipeline>,
    progress: fn(&Stats) -> u64,
    beside: impl FnOnce(ConsumerHandle) -> JoinHandle<()>,
) -> Result<()> {
    let consumer = builder.build()?;
    let beside = beside(consumer.handle());
    let meter = Arc::new(Mutex::new(Meter::new(job.records, Duration::ZERO)));
    let watch = tokio::spawn(watch(consumer.handle(), job.records, progress, meter.clone()));
    let report = consumer.run().await?;
    watch.abort();
    beside.abort();
    let mut meter = meter.lock().unwrap_or_else(PoisonError::into_inner);
    meter.reached(acknowledged(&report.stats));
    meter.print()
}

/// Updates the meter, and stops the consumer when all records are mapped. The stop delivers the
/// last batch before its age is reached.
async fn watch(handle: ConsumerHandle, records: u64, progress: fn(&Stats) -> u64, meter: Arc<Mutex<Meter>>) {
    let (mut ticks, mut stopped) = (tokio::time::interval(POLL_INTERVAL), false);
    loop {
        ticks.tick().await;
        let stats = handle.stats();
        meter.lock().unwrap_or_else(PoisonError::into_inner).reached(progress(&stats));
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
    batches(ClickHouseWriter::<R>::new(&job.url, &job.table), job)
}

fn batches<R: ClickHouseRow>(writer: ClickHouseWriter<R>, job: &Job) -> ClickHouseWriter<R> {
    let compression = if job.lz4 { Compression::Lz4 } else { Compression::None };
    writer.database(&job.database).compression(compression).max_rows(BATCH_ROWS).max_age(BATCH_AGE)
}
