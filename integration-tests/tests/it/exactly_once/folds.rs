//! Folded rows: whatever is killed, counts and sums are those of the produced records.

use std::time::Duration;

use anyhow::{Result, ensure};
use clickhouse::Row;
use integration_tests::consumer::RowKind;
use integration_tests::{Deadline, Signal, log_line, soaking, test_name, wait_until};
use serde::Deserialize;

use super::{ends, set_window, settings};
use crate::load::Load;
use crate::scene::{Scene, TABLE, alive, alone, start};

const PARTITIONS: i32 = 4;

/// What the table has of one partition.
#[derive(Debug, PartialEq, Eq, Row, Deserialize)]
struct Totals {
    partition: u32,
    records: u64,
    numbers: u64,
}

#[tokio::test]
async fn counts_and_sums_of_folded_rows_survive_kills() -> Result<()> {
    let _alone = alone().await;
    let scene = Scene::new(test_name!(), PARTITIONS, RowKind::Folded).await?;
    set_window(&scene, 10_000).await?;
    let mut settings = settings(&scene);
    settings.max_bytes = None;
    let kills = if soaking() { 30 } else { 3 };
    let load = Load::numbered(&scene.topic, 0, 2_000);
    let mut members = vec![start(&settings)?, start(&settings)?];
    for kill in 0..kills {
        let before = records(&scene).await?;
        wait_until(Deadline::seconds(90), "1,000 records are in the table", async || {
            members.iter().try_for_each(alive)?;
            Ok(records(&scene).await? >= before + 1_000)
        })
        .await?;
        tokio::time::sleep(Duration::from_millis(kill * 130 % 400)).await;
        let mut killed = members.remove(0);
        killed.end(Signal::Kill, Deadline::seconds(10)).await?;
        members.push(start(&settings)?);
    }
    let produced = load.stop().await?;
    scene.all_committed(&members[0], Deadline::seconds(120)).await?;
    // The numbers of partition p are p, p + 4, p + 8 and so on.
    let expected = produced.records.iter().map(|(partition, records)| {
        let (first, step) = (u64::from(partition.unsigned_abs()), u64::from(PARTITIONS.unsigned_abs()));
        let numbers = records * first + step * records * (records - 1) / 2;
        Totals { partition: partition.unsigned_abs(), records: *records, numbers }
    });
    let expected: Vec<Totals> = expected.collect();
    let query = format!(
        "SELECT partition, sum(records) AS records, sum(numbers) AS numbers FROM {TABLE} GROUP BY partition \
         ORDER BY partition"
    );
    let stored: Vec<Totals> = scene.database.client().query(&query).fetch_all().await?;
    ensure!(stored == expected, "the table has {stored:?}, and {expected:?} was produced");
    for member in members {
        ends(member).await?;
    }
    let (rows, records) = (scene.rows().await?, records(&scene).await?);
    ensure!(rows * 2 < records, "{records} records in {rows} rows are hardly folded");
    log_line(format_args!("{kills} kills: {records} records in {rows} rows, counted once each"));
    Ok(())
}

/// The records that the rows in the table count.
async fn records(scene: &Scene) -> Result<u64> {
    Ok(scene.database.number(&format!("SELECT sum(records) FROM {TABLE}")).await?)
}
