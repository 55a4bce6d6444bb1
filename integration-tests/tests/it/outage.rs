//! A server that goes away under load and comes back: the consumer waits, and nothing is lost.

use std::time::{Duration, Instant};

use anyhow::Result;
use integration_tests::consumer::RowKind;
use integration_tests::{ClickHouse, Deadline, Kafka, Signal, say, test_name, wait_until};

use crate::load::Load;
use crate::scene::{Scene, alive, start};

/// How long ClickHouse is away.
const OUTAGE: Duration = Duration::from_secs(20);

/// From here on in the outage nothing can have been on its way to the commit any more.
const SETTLED: Duration = Duration::from_secs(5);

#[tokio::test]
async fn clickhouse_away_for_20_s_loses_nothing() -> Result<()> {
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
    assert!(!ahead, "offsets were committed while there was nowhere to deliver to");
    let waiting = scene.topic.lag(&scene.group).await?;
    assert!(waiting > 0, "there was no load");
    clickhouse.start().await?;
    let back = scene.rows().await?;

    scene.rows_reach(back + 5_000, &consumer, Deadline::seconds(60)).await?;
    let produced = load.stop().await?;
    scene.all_committed(&consumer, Deadline::seconds(60)).await?;
    let doubles = scene.nothing_is_missing(&produced).await?;
    let status = consumer.end(Signal::Terminate, Deadline::seconds(30)).await?;
    assert!(status.success(), "{status}: {}", consumer.stderr());
    // It said what it was waiting for.
    assert!(consumer.stderr().contains("delivery failed, trying again"), "{}", consumer.stderr());
    let total = produced.total();
    say(format_args!(
        "ClickHouse away for 20 s: {waiting} waiting at its end, {total} records in all, none missing, {doubles} double"
    ));
    Ok(())
}
