//! kmr, with its defaults, but for the batches.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, ClientConfig, Consumer, ConsumerHandle, Delivered, Delivery,
    DeliveryError, IntoPipeline, Record, Reducer, ResetPolicy, async_trait, processing_strategy,
};
use kmr_sinks::clickhouse::{ClickHouseWriter, Compression, Row};
use serde::Serialize;

use crate::shared::job::{BATCH_AGE, BATCH_ROWS, Job, Work};
use crate::shared::meter::Meter;
use crate::shared::rows::{self, Metric, Seen};

/// How often the rows that are acknowledged are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// W1 or W2 without a sink.
pub(crate) async fn drop_rows(job: &Job) -> Result<()> {
    match job.work {
        Work::W1 => run(job, processing_strategy!({ map => seen, reduce => Drop::<Seen>::new() })).await,
        Work::W2 => run(job, processing_strategy!({ map => metric, reduce => Drop::<Metric>::new() })).await,
    }
}

/// W1 or W2 into ClickHouse.
pub(crate) async fn insert(job: &Job) -> Result<()> {
    match job.work {
        Work::W1 => run(job, processing_strategy!({ map => seen, reduce => writer::<Seen>(job) })).await,
        Work::W2 => run(job, processing_strategy!({ map => metric, reduce => writer::<Metric>(job) })).await,
    }
}

async fn run(job: &Job, strategy: impl IntoPipeline) -> Result<()> {
    let config = ClientConfig::new().set("bootstrap.servers", &job.broker).set("group.id", &job.group);
    let consumer = Consumer::builder()
        .topics([&job.topic])
        .config(config)
        .reset_policy(ResetPolicy::Earliest)
        .strategy(strategy)
        .build()?;
    let meter = Arc::new(Mutex::new(Meter::new(job.records, Duration::ZERO)));
    let watch = tokio::spawn(watch(consumer.handle(), job.records, meter.clone()));
    let report = consumer.run().await?;
    watch.abort();
    let mut meter = meter.lock().unwrap_or_else(PoisonError::into_inner);
    meter.reached(report.stats.rows.get("reduce 1").copied().unwrap_or_default());
    meter.print()
}

/// Tells the meter, and ends the consumer when all is mapped: what is mapped is delivered then, without waiting for its age.
async fn watch(handle: ConsumerHandle, records: u64, meter: Arc<Mutex<Meter>>) {
    let (mut ticks, mut stopped) = (tokio::time::interval(LOOK), false);
    loop {
        ticks.tick().await;
        let stats = handle.stats();
        let rows = stats.rows.get("reduce 1").copied().unwrap_or_default();
        meter.lock().unwrap_or_else(PoisonError::into_inner).reached(rows);
        // Once: a second stop would not wait for anything.
        if stats.records >= records && !stopped {
            handle.stop();
            stopped = true;
        }
    }
}

fn seen(record: &Record<'_>) -> Result<Seen, BoxError> {
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
        .max_records(BATCH_ROWS)
        .max_age(BATCH_AGE)
}

/// Acknowledges every batch at once and forgets it.
struct Drop<T>(Vec<T>);

impl<T> Drop<T> {
    fn new() -> Self {
        Self(Vec::new())
    }
}

#[async_trait]
impl<T: Send + 'static> Reducer for Drop<T> {
    type Rows = Vec<T>;
    type Output = ();

    fn options(&self) -> BatchOptions {
        BatchOptions::default().with_max_records(BATCH_ROWS).with_max_age(BATCH_AGE)
    }

    fn rows(&self) -> Vec<T> {
        Vec::new()
    }

    fn accept(&mut self, mut chunk: Chunk<Vec<T>>) -> Result<(), BoxError> {
        self.0.append(&mut chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        self.0.clear();
        Ok(Box::new(Dropped))
    }
}

struct Dropped;

#[async_trait]
impl Delivery for Dropped {
    type Output = ();

    async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
        Ok(Delivered::new(()))
    }
}
