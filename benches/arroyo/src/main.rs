//! The pipeline of integration-tests/benches on the sentry_arroyo crate.
//!
//! It uses arroyo's strategies wherever there is one, and the `clickhouse` crate's insert in
//! `RunTaskInThreads`, with as many inserts in progress as kmr. The benchmark builds and starts
//! this program. Its job and its output are defined in the directory `shared`, as for all
//! contenders.

#[path = "../../../integration-tests/benches/pipeline/shared/mod.rs"]
mod shared;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clickhouse::Row;
use sentry_arroyo::backends::kafka::InitialOffset;
use sentry_arroyo::backends::kafka::config::KafkaConfig;
use sentry_arroyo::backends::kafka::types::KafkaPayload;
use sentry_arroyo::processing::strategies::commit_offsets::CommitOffsets;
use sentry_arroyo::processing::strategies::reduce::Reduce;
use sentry_arroyo::processing::strategies::run_task::RunTask;
use sentry_arroyo::processing::strategies::run_task_in_threads::{
    ConcurrencyConfig, RunTaskError, RunTaskFunc, RunTaskInThreads,
};
use sentry_arroyo::processing::strategies::{
    InvalidMessage, InvalidMessageReason, MessageRejected, ProcessingStrategy, ProcessingStrategyFactory,
    SubmitError,
};
use sentry_arroyo::processing::{ProcessorHandle, StreamProcessor};
use sentry_arroyo::types::{InnerMessage, Message, Topic};
use serde::Serialize;

use self::shared::job::{BATCH_AGE, BATCH_ROWS, Job, Work};
use self::shared::meter::Meter;
use self::shared::rows;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Inserts in progress at once: kmr's default.
const INSERTS: usize = 2;

/// Interval between commits: kmr's default.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let argument = std::env::args().nth(1).context("usage: arroyo-pipeline JOB, with the job as JSON")?;
    let job: Job = serde_json::from_str(&argument).context("parsing the job")?;
    match job.work {
        Work::W1 => run(&job, rows::seen),
        Work::W2 => run(&job, |_, _, payload| rows::metric(payload)),
    }
}

fn run<R, M>(job: &Job, map: M) -> Result<()>
where
    R: for<'a> Row<Value<'a> = R> + Serialize + Send + Sync + 'static,
    M: Fn(i32, i64, &[u8]) -> Result<R> + Copy + Send + Sync + 'static,
{
    let (broker, group, topic) = (job.broker.clone(), job.group.clone(), Topic::new(&job.topic));
    let config = KafkaConfig::new_consumer_config(
        vec![broker],
        group,
        InitialOffset::Earliest,
        false,
        300_000,
        Some(job.fetch().collect()),
    );
    let meter = Meter::new(job.records, Duration::ZERO);
    let progress = Arc::new(Mutex::new(Progress { inserted: 0, meter, processor: None }));
    let insert = Insert { client: job.client(), table: job.table.clone(), progress: progress.clone() };
    let factory = Factory { map, insert, concurrency: ConcurrencyConfig::new(INSERTS) };
    let processor = StreamProcessor::with_kafka(config, factory, topic, None);
    lock(&progress).processor = Some(processor.get_handle());
    // The error is not `Send`, so it cannot be a source.
    processor.run().map_err(|error| anyhow!("the processor failed: {error:?}"))?;
    lock(&progress).meter.print()
}

/// Creates the chain of each assignment: map, batch, insert, commit.
struct Factory<M> {
    map: M,
    insert: Insert,
    concurrency: ConcurrencyConfig,
}

impl<R, M> ProcessingStrategyFactory<KafkaPayload> for Factory<M>
where
    R: for<'a> Row<Value<'a> = R> + Serialize + Send + Sync + 'static,
    M: Fn(i32, i64, &[u8]) -> Result<R> + Copy + Send + Sync + 'static,
{
    fn create(&self) -> Box<dyn ProcessingStrategy<KafkaPayload>> {
        let insert = self.insert.clone();
        let task = move |batch: Message<Vec<R>>| -> RunTaskFunc<(), anyhow::Error> {
            let insert = insert.clone();
            Box::pin(async move { insert.batch(batch).await.map_err(RunTaskError::Other) })
        };
        let commit = CommitOffsets::new(COMMIT_INTERVAL);
        let inserts = RunTaskInThreads::new(commit, task, &self.concurrency, None);
        let collect = |mut rows: Vec<R>, message: Message<R>| {
            rows.push(message.into_payload());
            Ok(rows)
        };
        let batches = Reduce::new(
            inserts,
            Arc::new(collect),
            Arc::new(|| Vec::with_capacity(BATCH_ROWS)),
            BATCH_ROWS,
            BATCH_AGE,
            |_| 1,
        );
        let map = self.map;
        Box::new(RunTask::new(move |message| map_record(message, map), batches))
    }
}

/// Maps a record to a row.
fn map_record<R>(
    message: Message<KafkaPayload>,
    map: impl Fn(i32, i64, &[u8]) -> Result<R>,
) -> Result<Message<R>, SubmitError<KafkaPayload>> {
    let InnerMessage::BrokerMessage(record) = &message.inner_message else {
        // A consumer creates no other messages.
        return Err(SubmitError::MessageRejected(MessageRejected { message }));
    };
    let payload = record.payload.payload().map_or(&[][..], Vec::as_slice);
    let row = map(record.partition.index.into(), i64::try_from(record.offset).unwrap_or(-1), payload);
    match row {
        Ok(row) => Ok(message.replace(row)),
        Err(_) => Err(SubmitError::InvalidMessage(InvalidMessage {
            partition: record.partition,
            offset: record.offset,
            reason: InvalidMessageReason::Invalid,
        })),
    }
}

/// The last step. It ends the program when all rows are stored.
#[derive(Clone)]
struct Insert {
    client: clickhouse::Client,
    table: String,
    progress: Arc<Mutex<Progress>>,
}

struct Progress {
    inserted: u64,
    meter: Meter,
    processor: Option<ProcessorHandle>,
}

impl Insert {
    async fn batch<R>(self, batch: Message<Vec<R>>) -> Result<Message<()>>
    where
        R: for<'a> Row<Value<'a> = R> + Serialize,
    {
        let (offsets, rows) = batch.take();
        let mut insert = self.client.insert::<R>(&self.table).await?;
        for row in &rows {
            insert.write(row).await?;
        }
        insert.end().await?;
        let mut progress = lock(&self.progress);
        progress.inserted += rows.len() as u64;
        let inserted = progress.inserted;
        progress.meter.reached(inserted);
        if progress.meter.is_done()
            && let Some(processor) = &mut progress.processor
        {
            processor.signal_shutdown();
        }
        Ok(offsets)
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}
