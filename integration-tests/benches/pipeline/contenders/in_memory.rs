//! Ceilings without Kafka: decodes payloads and inserts rows, both from memory. Generating them is
//! not measured.

use anyhow::Result;
use clickhouse::Row;
use serde::Serialize;

use crate::payload::payload;
use crate::shared::clock::process_cpu;
use crate::shared::job::{BATCH_ROWS, Job, Work};
use crate::shared::meter::Meter;
use crate::shared::rows::{self, Metric};

/// Number of payloads or rows in memory, which are used repeatedly. As a topic's, they do not fit
/// into the processor's caches.
const IN_MEMORY: u64 = 8 * BATCH_ROWS as u64;

/// Records between two reads of the clock.
const STEP: u64 = 1_000;

/// W2's map on every payload.
pub(crate) fn decode(job: &Job) -> Result<()> {
    let payloads: Vec<Vec<u8>> = (0..IN_MEMORY.min(job.records)).map(payload).collect();
    let mut meter = Meter::new(job.records, process_cpu());
    for (done, payload) in (1..=job.records).zip(payloads.iter().cycle()) {
        std::hint::black_box(rows::metric(std::hint::black_box(payload))?);
        if done % STEP == 0 || done == job.records {
            meter.reached(done);
        }
    }
    meter.print()
}

/// Inserts the rows of W1 or W2, batch after batch.
pub(crate) async fn insert(job: &Job) -> Result<()> {
    let numbers = 0..IN_MEMORY.min(job.records);
    match job.work {
        Work::W1 => {
            let row = |n: u64| rows::seen((n % 4).try_into()?, (n / 4).try_into()?, b"");
            insert_rows(job, numbers.map(row).collect::<Result<Vec<_>>>()?).await
        }
        Work::W2 => {
            let rows: Vec<Metric> = numbers.map(|n| rows::metric(&payload(n))).collect::<Result<_>>()?;
            insert_rows(job, rows).await
        }
    }
}

async fn insert_rows<R>(job: &Job, rows: Vec<R>) -> Result<()>
where
    R: for<'a> Row<Value<'a> = R> + Serialize,
{
    let client = job.client();
    let mut meter = Meter::new(job.records, process_cpu());
    let mut rows = rows.iter().cycle();
    let mut done = 0;
    while !meter.is_done() {
        let batch = (job.records - done).min(BATCH_ROWS as u64);
        let mut insert = client.insert::<R>(&job.table).await?;
        for row in rows.by_ref().take(batch.try_into()?) {
            insert.write(row).await?;
        }
        insert.end().await?;
        done += batch;
        meter.reached(done);
    }
    meter.print()
}
