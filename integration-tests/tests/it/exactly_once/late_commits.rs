//! A commit whose connection breaks reaches the broker later, when kmr has committed again and was
//! killed. The broker still knows the member.
//!
//! A broker that accepted it would move the offsets back, and the next owner would insert rows
//! again under new tokens.

use anyhow::Result;
use integration_tests::consumer::{RowKind, Settings};
use integration_tests::{ClickHouse, Deadline, KafkaProxy, Signal, log_line, test_name, wait_until};

use super::{each_row_once, ends, set_window, settings};
use crate::load::Load;
use crate::scene::{Scene, alive, alone, start};

const PARTITIONS: i32 = 4;
const PER_SECOND: u64 = 1_000;

#[tokio::test]
async fn a_commit_that_arrives_late_duplicates_no_row_in_a_classic_group() -> Result<()> {
    late_commit(test_name!(), |settings| settings).await
}

#[tokio::test]
async fn a_commit_that_arrives_late_duplicates_no_row_with_kip_848() -> Result<()> {
    late_commit(test_name!(), |settings| settings.kafka("group.protocol", "consumer")).await
}

async fn late_commit(name: &str, change: impl Fn(Settings) -> Settings) -> Result<()> {
    let _alone = alone().await;
    let proxy = KafkaProxy::start().await?;
    let scene =
        Scene::on(proxy.kafka(), &ClickHouse::shared().await?, name, PARTITIONS, RowKind::Ingest).await?;
    set_window(&scene, 10_000).await?;
    let settings = change(settings(&scene));
    let through_proxy = Settings { broker: proxy.address().to_owned(), ..settings.clone() };
    let load = Load::numbered(&scene.topic, 0, PER_SECOND);
    let mut first = start(&through_proxy)?;
    scene.rows_reach(2_000, &first, Deadline::seconds(90)).await?;

    let held = proxy.hold_commit(Deadline::seconds(30)).await?;
    let (before, rows) = (scene.committed().await?, scene.rows().await?);
    // The consumer commits on over another connection.
    wait_until(Deadline::seconds(60), "2,000 more records are committed", async || {
        alive(&first)?;
        Ok(scene.committed().await? >= before + 2_000)
    })
    .await?;
    let line = first.wait_for_line(Deadline::seconds(1), "the broker may apply the request later").await?;
    first.end(Signal::Kill, Deadline::seconds(10)).await?;
    let committed = scene.committed().await?;
    held.deliver().await?;
    let after = scene.committed().await?;

    let second = start(&settings)?;
    let produced = load.stop().await?;
    scene.all_committed(&second, Deadline::seconds(120)).await?;
    each_row_once(&scene, &produced).await?;
    ends(second).await?;
    log_line(format_args!(
        "held at offset {before} with {rows} rows, delivered at {committed}, then {after}; each row is \
         stored once; {line}"
    ));
    anyhow::ensure!(after >= committed, "the late commit moved the offsets from {committed} to {after}");
    Ok(())
}
