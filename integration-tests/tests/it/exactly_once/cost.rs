//! What exactly-once mode costs: processor time of both modes on the same records, in one run. Figures of a debug build say something about
//! the ratio alone.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::Settings;
use integration_tests::{Deadline, Signal, say, test_name};

use super::scene;
use crate::scene::{Scene, alone, numbered, start};

const RECORDS: u64 = 300_000;
const PARTITIONS: i32 = 4;
/// More than that would be a defect, not a price.
const MOST: f64 = 2.0;

#[tokio::test]
async fn exactly_once_costs_little_more_processor_time() -> Result<()> {
    let _alone = alone().await;
    let (plain, exact) = (seconds(false).await?, seconds(true).await?);
    let per_million = |time: Duration| time.as_secs_f64() * 1e6 / RECORDS as f64;
    let (plain, exact) = (per_million(plain), per_million(exact));
    let ratio = exact / plain;
    say(format_args!(
        "CPU-seconds per million rows: at least once {plain:.2}, exactly once {exact:.2}, ratio {ratio:.2}"
    ));
    ensure!(ratio < MOST, "exactly once takes {ratio:.2} times the processor time of at least once");
    Ok(())
}

/// Processor time from the start to the last commit.
async fn seconds(exactly_once: bool) -> Result<Duration> {
    let name = format!("{} {exactly_once}", test_name!());
    let scene: Scene = scene(&name, PARTITIONS, 1000).await?;
    scene.topic.produce(numbered(RECORDS, PARTITIONS)).await?;
    let settings = Settings { exactly_once, ..scene.settings() };
    let mut consumer = start(&settings)?;
    scene.all_committed(&consumer, Deadline::seconds(180)).await?;
    let time = consumer.cpu_time()?;
    consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    ensure!(scene.rows().await? == RECORDS);
    Ok(time)
}
