//! Rows that the table rejects in exactly-once mode, also when the process aborts in between.
//!
//! Probes find the rows without writing. Their dead letters are delivered before the other rows of
//! the block, which are inserted under the block's token.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use integration_tests::consumer::{AbortAt, Settings, Step};
use integration_tests::{ClickHouse, Database, Deadline, Process, log_line, test_name, wait_until};
use kmr_core::{Attempt, Block, DeliveryError, Reducer, RejectedRow, error_chain};
use kmr_sinks::clickhouse::{ClickHouseWriter, Row};
use serde::{Deserialize, Serialize};

use super::{aborted, aborts, commits_all, ends, scene, settings};
use crate::scene::{Scene, TABLE, alive, numbered, start};
use crate::writer::{Batch, batch};

const RECORDS: u64 = 3_000;
const PARTITIONS: i32 = 2;
/// One row of so many is rejected, so two of each block of 200.
const EVERY: u64 = 100;

fn is_rejected(offset: u64) -> bool {
    offset % EVERY == 37
}

/// A table that rejects rows, and settings of a consumer that writes to it.
async fn rejecting(name: &str) -> Result<(Scene, Settings)> {
    let scene = scene(name, PARTITIONS, 1000).await?;
    let constraint = format!("ALTER TABLE {TABLE} ADD CONSTRAINT reject CHECK offset % {EVERY} != 37");
    scene.database.exec(&constraint).await?;
    let settings = settings(&scene);
    Ok((scene, settings))
}

/// A dead letter, as a JSON line of standard error.
#[derive(Deserialize)]
struct DeadLetterLine {
    partition: i32,
    offset: u64,
    stage: String,
    error: String,
    code: Option<String>,
    record: Option<serde_json::Value>,
}

fn dead_letters(process: &Process) -> Vec<DeadLetterLine> {
    process.stderr().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Checks that each accepted row is stored once, and that each rejected row is a dead letter and
/// not stored. Returns the number of dead letters.
async fn each_row_once_or_rejected(scene: &Scene, processes: &[&Process]) -> Result<usize> {
    let per_partition = RECORDS / u64::from(PARTITIONS.unsigned_abs());
    let rejected = (0..per_partition).filter(|offset| is_rejected(*offset)).count() as u64;
    let good = RECORDS - rejected * u64::from(PARTITIONS.unsigned_abs());
    let distinct =
        scene.database.number(&format!("SELECT uniqExact(partition, offset) FROM {TABLE}")).await?;
    let rows = scene.rows().await?;
    ensure!(
        (rows, distinct) == (good, good),
        "each accepted row is stored once: {rows} rows, {distinct} distinct, {good} accepted"
    );
    let all: Vec<DeadLetterLine> = processes.iter().flat_map(|process| dead_letters(process)).collect();
    for dead_letter in &all {
        let DeadLetterLine { partition, offset, stage, error, code, record } = dead_letter;
        ensure!(is_rejected(*offset), "accepted row {partition}/{offset} is a dead letter: {error}");
        ensure!(
            stage == "reduce 1" && code.as_deref() == Some("469"),
            "{partition}/{offset}: {stage}, {code:?}"
        );
        ensure!(error.contains("`reject`") && error.contains("column `offset`"), "{error}");
        ensure!(error.contains(TABLE) && !error.contains("temporary"), "{error}");
        ensure!(record.is_some(), "the dead letter of {partition}/{offset} has no record");
    }
    let distinct: BTreeSet<(i32, u64)> =
        all.iter().map(|dead_letter| (dead_letter.partition, dead_letter.offset)).collect();
    ensure!(
        distinct.len() as u64 == RECORDS - good,
        "each rejected row is a dead letter: {} of {}",
        distinct.len(),
        RECORDS - good
    );
    Ok(all.len())
}

#[tokio::test]
async fn rejected_rows_are_dead_letters_with_code_and_record_and_the_others_are_stored_once() -> Result<()> {
    let (scene, settings) = rejecting(test_name!()).await?;
    scene.topic.produce(numbered(RECORDS, PARTITIONS)).await?;
    let consumer = commits_all(&scene, &settings).await?;
    let dead_letters = each_row_once_or_rejected(&scene, &[&consumer]).await?;
    ends(consumer).await?;
    log_line(format_args!("{RECORDS} produced, {dead_letters} rejected, each stored once or a dead letter"));
    Ok(())
}

#[tokio::test]
async fn a_process_that_dies_while_it_finds_rejected_rows_leaves_each_row_once() -> Result<()> {
    let during = |millis| Step::DuringInsert(Duration::from_millis(millis));
    tokio::try_join!(
        aborts_at("as the probes start", during(3)),
        aborts_at("during the probes", during(9)),
        aborts_at("when the rows are found", Step::BeforeCommit),
        aborts_at("after the dead letters", Step::BeforeRest),
        aborts_at("after the other rows", Step::AfterRest),
    )?;
    Ok(())
}

async fn aborts_at(name: &str, step: Step) -> Result<()> {
    let (scene, settings) = rejecting(&format!("{} {name}", test_name!())).await?;
    scene.topic.produce(numbered(RECORDS, PARTITIONS)).await?;
    let first = aborts(&settings, step, 3).await.with_context(|| name.to_owned())?;
    let (lag, before) = (scene.topic.lag(&scene.group).await?, scene.rows().await?);
    ensure!(lag > 0, "{name}: all records were committed before the abort");
    let second = commits_all(&scene, &settings).await?;
    let dead_letters =
        each_row_once_or_rejected(&scene, &[&first, &second]).await.context(name.to_owned())?;
    ends(second).await.with_context(|| name.to_owned())?;
    log_line(format_args!(
        "aborted {name}: {lag} records were not committed, {before} rows were stored; {dead_letters} dead letters in all"
    ));
    Ok(())
}

/// Two processes run, and the other one takes over the partition of the one that aborts.
#[tokio::test]
async fn the_partition_of_a_process_that_dies_while_it_finds_rejected_rows_moves_to_another() -> Result<()> {
    let (scene, settings) = rejecting(test_name!()).await?;
    let mut aborting = settings.clone();
    aborting.abort = Some(AbortAt { step: Step::BeforeRest, block: 2 });
    let mut first = start(&aborting)?;
    let second = start(&settings)?;
    scene.topic.produce(numbered(RECORDS / 2, PARTITIONS)).await?;
    aborted(&mut first).await?;
    scene.topic.produce(numbered(RECORDS / 2, PARTITIONS)).await?;
    scene.all_committed(&second, Deadline::seconds(120)).await?;
    each_row_once_or_rejected(&scene, &[&first, &second]).await?;
    ends(second).await
}

/// The constraint is dropped while a block with rejected rows is in progress. Each rejected row is
/// stored or a dead letter, the others are stored, and no row is stored twice.
#[tokio::test]
async fn a_table_that_later_accepts_rejected_rows_stores_none_twice() -> Result<()> {
    let (scene, settings) = rejecting(test_name!()).await?;
    scene.topic.produce(numbered(RECORDS, PARTITIONS)).await?;
    let first = aborts(&settings, Step::AfterRest, 3).await?;
    scene.database.exec(&format!("ALTER TABLE {TABLE} DROP CONSTRAINT reject")).await?;
    let second = commits_all(&scene, &settings).await?;
    let (rows, distinct) = (
        scene.rows().await?,
        scene.database.number(&format!("SELECT uniqExact(partition, offset) FROM {TABLE}")).await?,
    );
    let dead_lettered: BTreeSet<(i32, u64)> =
        dead_letters(&first).iter().map(|dead_letter| (dead_letter.partition, dead_letter.offset)).collect();
    ensure!(
        !dead_lettered.is_empty() && dead_letters(&second).is_empty(),
        "only the first process has dead letters"
    );
    ensure!(
        rows == distinct && rows + dead_lettered.len() as u64 == RECORDS,
        "each row is stored once or a dead letter: {rows} rows, {distinct} distinct, {} dead letters",
        dead_lettered.len()
    );
    ends(second).await
}

#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
struct Reading {
    id: u64,
    value: i32,
    json: String,
}

const COUNT: u64 = 100_000;
const BAD: u64 = 65_535;

/// A block of [`COUNT`] rows, of which the row [`BAD`] is spoilt.
async fn block(database: &Database, spoil: fn(&mut Reading)) -> Batch {
    let mut writer = ClickHouseWriter::<Reading>::new(database.server().url(), "t")
        .database(database.name())
        .max_rows(1 << 20);
    writer.start().await.unwrap();
    writer.start_exactly_once().await.unwrap();
    let rows = (0..COUNT).map(|id| {
        let mut row = Reading { id, value: 1, json: "{}".into() };
        if id == BAD {
            spoil(&mut row);
        }
        row
    });
    batch(&mut writer, rows)
}

fn attempt(token: &str, without: &[usize]) -> Attempt {
    Attempt::new(1).with_block(Block::new(token, SystemTime::now(), true).with_excluded_rows(without))
}

async fn rejected(block: &Batch, token: &str) -> Vec<RejectedRow> {
    let error: DeliveryError = block.deliver(attempt(token, &[])).await.unwrap_err();
    error.into_rejected().map_err(|error| error_chain(&*error.into_source())).unwrap()
}

#[tokio::test]
async fn one_bad_row_of_100_000_is_found_without_writing_and_the_others_keep_the_token() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    let ddl = "CREATE TABLE t (id UInt64, value Int32, json JSON, share UInt64 MATERIALIZED intDiv(100, value), at DateTime DEFAULT now() \
               TTL at + INTERVAL 1 DAY, CONSTRAINT low CHECK value < 1000) ENGINE = MergeTree ORDER BY id PARTITION BY id % 3 SETTINGS \
               non_replicated_deduplication_window = 1000";
    database.exec(ddl).await.unwrap();
    type Spoil = fn(&mut Reading);
    let spoils: [(&str, Spoil, u32); 3] = [
        ("a constraint", |row| row.value = 1000, 4),
        ("an unreadable value", |row| row.json = "{\"a\":".into(), 4),
        // The server does not name the row, so it takes 2·log2(100,000) requests, the block itself,
        // and the other rows.
        ("a computed column", |row| row.value = 0, 35),
    ];
    for (what, spoil, max_requests) in spoils {
        database.exec("TRUNCATE TABLE t").await.unwrap();
        let token = format!("token-of-{}", what.replace(' ', "-"));
        let first = block(&database, spoil).await;
        let rows = rejected(&first, &token).await;
        let rows: Vec<u64> = rows.iter().map(|row| row.index as u64).collect();
        assert_eq!(rows, [BAD], "{what}: exactly the bad row is found");
        assert_eq!(database.count("t").await.unwrap(), 0, "{what}: probes write nothing");
        let delivered = first.deliver(attempt(&token, &[BAD as usize])).await.unwrap();
        let receipt = delivered.output;
        assert!(delivered.rejected.is_empty(), "{what}: the other rows are accepted");
        assert_eq!((receipt.rows, receipt.rejected), (COUNT - 1, 1), "{what}: the receipt counts the rows");
        log_line(format_args!("{what}: {COUNT} rows, one bad: {} requests", receipt.inserts));
        assert!(
            receipt.inserts <= max_requests,
            "{what}: {} requests are more than the limit of {max_requests}",
            receipt.inserts
        );
        let rebuilt = block(&database, spoil).await;
        assert_eq!(rejected(&rebuilt, &token).await.len(), 1, "{what}: a rebuilt block finds the same row");
        rebuilt.deliver(attempt(&token, &[BAD as usize])).await.unwrap();
        // The server deduplicates a part of the block under the same token too.
        rebuilt.deliver(attempt(&token, &[1, 2, BAD as usize])).await.unwrap();
        let stored = database.number("SELECT count() * 1000000000 + uniqExact(id) FROM t").await.unwrap();
        assert_eq!(
            stored,
            (COUNT - 1) * 1_000_000_000 + COUNT - 1,
            "{what}: each accepted row is stored once"
        );
    }
}

#[tokio::test]
async fn a_block_that_a_view_rejects_gives_no_dead_letters_of_accepted_rows() -> Result<()> {
    let (scene, settings) = rejecting(test_name!()).await?;
    // Neither a constraint nor a computed column, so the probes do not find it.
    let view = format!(
        "CREATE MATERIALIZED VIEW checks ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 100 AS SELECT \
         throwIf(offset = 20) AS n FROM {TABLE}"
    );
    scene.database.exec(&view).await?;
    scene.topic.produce(numbered(100, PARTITIONS)).await?;
    let mut settings = settings;
    settings.give_up_after = Duration::from_secs(3);
    let mut consumer = start(&settings)?;
    let stopped = async || Ok(alive(&consumer).is_err());
    wait_until(Deadline::seconds(60), "the consumer has stopped", stopped).await?;
    let status = consumer.wait(Deadline::seconds(60)).await?;
    ensure!(status.code() == Some(1), "the consumer did not stop by itself: {status}: {}", consumer.stderr());
    let good =
        dead_letters(&consumer).into_iter().filter(|dead_letter| !is_rejected(dead_letter.offset)).count();
    ensure!(good == 0, "{good} accepted records are dead letters");
    Ok(())
}
