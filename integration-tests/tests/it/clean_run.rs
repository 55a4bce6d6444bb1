//! A run without faults: every record is stored once, with the rate and the processor time it
//! takes.

use anyhow::{Context as _, Result};
use integration_tests::consumer::{Event, RowKind};
use integration_tests::{Deadline, Process, Signal, log_line, records, test_name};

use crate::scene::{Scene, alone, numbered, start};

#[tokio::test]
async fn a_million_records_over_8_partitions_arrive_once() -> Result<()> {
    let _alone = alone().await;
    let scene = Scene::new(test_name!(), 8, RowKind::Ingest).await?;
    let count = records(1_000_000, 20_000_000);
    let produced = scene.topic.produce(numbered(count, 8)).await?;
    assert_eq!(produced.total(), count);

    let mut consumer = start(&scene.settings())?;
    scene.all_committed(&consumer, Deadline::seconds(120 + count / 10_000)).await?;
    let cpu = consumer.cpu_time()?;
    let status = consumer.end(Signal::Terminate, Deadline::seconds(30)).await?;
    assert!(status.success(), "{status}: {}", consumer.stderr());

    let duplicates = scene.nothing_is_missing(&produced).await?;
    assert_eq!(duplicates, 0, "each row is stored once");
    assert!(
        matches!(Event::last(&consumer), Some(Event::Ended { records, dead_letters: 0, .. }) if records == count)
    );
    let seconds = delivering_seconds(&consumer, count)?;
    let millions = count as f64 / 1e6;
    log_line(format_args!(
        "clean run: {count} JSON records, 8 partitions, to ClickHouse: {:.0} records/s, {:.2} CPU-s per million (consumer \
         process, {} profile)",
        count as f64 / seconds,
        cpu.as_secs_f64() / millions,
        if cfg!(debug_assertions) { "dev" } else { "release" },
    ));
    Ok(())
}

/// Time from the last event without a mapped record to the first with all rows acknowledged.
fn delivering_seconds(consumer: &Process, count: u64) -> Result<f64> {
    let mut first = None;
    for event in Event::all(consumer) {
        let Event::Progress { at, records, rows, .. } = event else { continue };
        if records == 0 {
            first = Some(at);
        }
        if rows == count {
            let first = first.context("no event before the first record")?;
            return Ok((at - first) as f64 / 1000.0);
        }
    }
    anyhow::bail!("no event with {count} acknowledged rows")
}
