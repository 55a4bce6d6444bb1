//! Compares the processor time of both delivery modes on the same records. In a debug build only
//! the ratio is meaningful.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::Settings;
use integration_tests::{Deadline, Signal, log_line, test_name};

use super::scene;
use crate::scene::{Scene, alone, numbered, start};

const RECORDS: u64 = 300_000;
const PARTITIONS: i32 = 4;
/// A higher ratio would be a defect.
const MAX_RATIO: f64 = 2.0;

#[tokio::test]
async fn exactly_once_costs_little_more_processor_time() -> Result<()> {
    let _alone = alone().await;
    let (plain, exact) = (seconds(false).await?, seconds(true).await?);
    let per_million = |time: Duration| time.as_secs_f64() * 1e6 / RECORDS as f64;
    let (plain, exact) = (per_million(plain), per_million(exact));
    let ratio = exact / plain;
    log_line(format_args!(
        "CPU-seconds per million rows: at least once {plain:.2}, exactly once {exact:.2}, ratio {ratio:.2}"
    ));
    ensure!(ratio < MAX_RATIO, "exactly once takes {ratio:.2} times the processor time of at least once");
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
    ensure!(scene.rows().await? == RECORDS, "each row is stored once");
    Ok(time)
}
