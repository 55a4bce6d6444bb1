//! A pipeline as a user would write it: rdkafka's `StreamConsumer` and the `clickhouse` crate's
//! `Inserter`.
//!
//! Offsets are committed when a batch is stored.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clickhouse::Row;
use clickhouse::inserter::Inserter;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use serde::Serialize;

use crate::shared::job::{BATCH_AGE, BATCH_ROWS, Job, Work};
use crate::shared::meter::Meter;
use crate::shared::rows;

/// W1 or W2.
pub(crate) async fn run(job: &Job) -> Result<()> {
    match job.work {
        Work::W1 => pump(job, rows::seen).await,
        Work::W2 => pump(job, |_, _, payload| rows::metric(payload)).await,
    }
}

async fn pump<R>(job: &Job, map: impl Fn(i32, i64, &[u8]) -> Result<R>) -> Result<()>
where
    R: for<'a> Row<Value<'a> = R> + Serialize,
{
    let mut meter = Meter::new(job.records, Duration::ZERO);
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &job.broker)
        .set("group.id", &job.group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false");
    config.extend(job.fetch());
    let consumer: StreamConsumer = config.create()?;
    consumer.subscribe(&[&job.topic])?;
    let mut inserter: Inserter<R> =
        job.client().inserter(&job.table).with_max_rows(BATCH_ROWS as u64).with_period(Some(BATCH_AGE));
    let (mut positions, mut received, mut inserted) = (BTreeMap::new(), 0, 0);
    // The inserter checks its period only in `commit`.
    let mut ticks = tokio::time::interval(BATCH_AGE / 4);
    while !meter.is_done() {
        tokio::select! {
            biased;
            message = consumer.recv() => {
                let message = message?;
                let payload = message.payload().context("a tombstone")?;
                inserter.write(&map(message.partition(), message.offset(), payload)?).await?;
                positions.insert(message.partition(), message.offset() + 1);
                received += 1;
            }
            _ = ticks.tick() => {}
        }
        let batch =
            if received == job.records { inserter.force_commit().await? } else { inserter.commit().await? };
        if batch.rows > 0 {
            commit(&consumer, &job.topic, &positions)?;
            inserted += batch.rows;
            meter.reached(inserted);
        }
    }
    inserter.end().await?;
    drop(consumer);
    meter.print()
}

fn commit(consumer: &StreamConsumer, topic: &str, positions: &BTreeMap<i32, i64>) -> Result<()> {
    let mut offsets = TopicPartitionList::new();
    for (partition, offset) in positions {
        offsets.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    Ok(consumer.commit(&offsets, CommitMode::Async)?)
}
