//! ClickHouse is unavailable under load for a while: the consumer retries, and no record is lost.

use std::time::{Duration, Instant};

use anyhow::Result;
use integration_tests::consumer::RowKind;
use integration_tests::{ClickHouse, Deadline, Kafka, Signal, log_line, test_name, wait_until};

use crate::load::Load;
use crate::scene::{Scene, alive, start};

/// Length of the outage.
const OUTAGE: Duration = Duration::from_secs(20);

/// Time after which no delivery from before the outage can still be committed.
const SETTLED: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_clickhouse_outage_of_20_s_loses_no_record() -> Result<()> {
    let clickhouse = ClickHouse::own().await?;
    let scene = Scene::on(&Kafka::shared().await?, &clickhouse, test_name!(), 4, RowKind::Ingest).await?;
    let load = Load::start(&scene.topic);
    let mut consumer = start(&scene.settings())?;
    scene.rows_reach(5_000, &consumer, Deadline::seconds(60)).await?;

    clickhouse.stop().await?;
    let stopped = Instant::now();
    let mut frozen = None;
    let mut ahead = false;
    wait_until(Deadline::after(OUTAGE * 2), "the outage is over", async || {
        alive(&consumer)?;
        let committed = scene.committed().await?;
        if stopped.elapsed() >= SETTLED {
            ahead |= *frozen.get_or_insert(committed) != committed;
        }
        Ok(stopped.elapsed() >= OUTAGE)
    })
    .await?;
    assert!(!ahead, "commit below unfinished (C1): offsets were committed during the outage");
    let waiting = scene.topic.lag(&scene.group).await?;
    assert!(waiting > 0, "records were produced during the outage");
    clickhouse.start().await?;
    let before = scene.rows().await?;

    scene.rows_reach(before + 5_000, &consumer, Deadline::seconds(60)).await?;
    let produced = load.stop().await?;
    scene.all_committed(&consumer, Deadline::seconds(60)).await?;
    let duplicates = scene.nothing_is_missing(&produced).await?;
    let status = consumer.end(Signal::Terminate, Deadline::seconds(30)).await?;
    assert!(status.success(), "{status}: {}", consumer.stderr());
    // The consumer logs its retries.
    assert!(consumer.stderr().contains("delivery failed, trying again"), "{}", consumer.stderr());
    let total = produced.total();
    log_line(format_args!(
        "ClickHouse unavailable for 20 s: lag {waiting} at its end, {total} records in all, none missing, {duplicates} \
         duplicates"
    ));
    Ok(())
}
