//! Rows that the table refuses: found by probes that write nothing, dead letters before the rest of their block is in, and the rest under
//! the block's own token; also when the process dies in the middle of it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use integration_tests::consumer::{Dies, Settings, Step};
use integration_tests::{ClickHouse, Database, Deadline, Process, Signal, say, test_name, wait_until};
use kmr_core::{Attempt, Block, Chunk, Delivery, DeliveryError, Reducer, RejectedRow, Rows, chain_text};
use kmr_sinks::clickhouse::{ClickHouseWriter, InsertReceipt, Row};
use serde::{Deserialize, Serialize};

use super::{scene, settings};
use crate::scene::{Scene, TABLE, alive, numbered, start};

const RECORDS: u64 = 3_000;
const PARTITIONS: i32 = 2;
/// In each block of 200 rows two are refused.
const EVERY: u64 = 100;

fn is_refused(offset: u64) -> bool {
    offset % EVERY == 37
}

/// A table that refuses rows, and settings of a consumer that writes to it.
async fn poisoned(name: &str) -> Result<(Scene, Settings)> {
    let scene = scene(name, PARTITIONS, 1000).await?;
    let constraint = format!("ALTER TABLE {TABLE} ADD CONSTRAINT poison CHECK offset % {EVERY} != 37");
    scene.database.exec(&constraint).await?;
    let settings = settings(&scene);
    Ok((scene, settings))
}

/// A dead letter, as it is written to standard error.
#[derive(Deserialize)]
struct Letter {
    partition: i32,
    offset: u64,
    stage: String,
    error: String,
    code: Option<String>,
    record: Option<serde_json::Value>,
}

fn letters(process: &Process) -> Vec<Letter> {
    process.stderr().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Every record is committed, and in the table once or, if it is refused, in the dead letters and not in the table.
async fn each_row_once_or_refused(scene: &Scene, processes: &[&Process]) -> Result<usize> {
    let per_partition = RECORDS / u64::from(PARTITIONS.unsigned_abs());
    let refused = (0..per_partition).filter(|offset| is_refused(*offset)).count() as u64;
    let good = RECORDS - refused * u64::from(PARTITIONS.unsigned_abs());
    let distinct =
        scene.database.number(&format!("SELECT uniqExact(partition, offset) FROM {TABLE}")).await?;
    let rows = scene.rows().await?;
    ensure!(
        (rows, distinct) == (good, good),
        "{rows} rows, {distinct} of them different, and {good} are good"
    );
    let all: Vec<Letter> = processes.iter().flat_map(|process| letters(process)).collect();
    for letter in &all {
        let Letter { partition, offset, stage, error, code, record } = letter;
        ensure!(is_refused(*offset), "{partition}/{offset} is in the dead letters: {error}");
        ensure!(
            stage == "reduce 1" && code.as_deref() == Some("469"),
            "{partition}/{offset}: {stage}, {code:?}"
        );
        ensure!(error.contains("`poison`") && error.contains("column `offset`"), "{error}");
        ensure!(error.contains(TABLE) && !error.contains("temporary"), "{error}");
        ensure!(record.is_some(), "{partition}/{offset} has no record");
    }
    let different: BTreeSet<(i32, u64)> =
        all.iter().map(|letter| (letter.partition, letter.offset)).collect();
    ensure!(different.len() as u64 == RECORDS - good, "{} records are in the dead letters", different.len());
    Ok(all.len())
}

#[tokio::test]
async fn refused_rows_are_dead_letters_with_code_and_record_and_the_others_are_in_once() -> Result<()> {
    let (scene, settings) = poisoned(test_name!()).await?;
    scene.topic.produce(numbered(RECORDS, PARTITIONS)).await?;
    let mut consumer = start(&settings)?;
    scene.all_committed(&consumer, Deadline::seconds(120)).await?;
    let letters = each_row_once_or_refused(&scene, &[&consumer]).await?;
    consumer.end(Signal::Terminate, Deadline::seconds(60)).await?;
    say(format_args!("{RECORDS} produced, {letters} refused, each in once or in the dead letters once"));
    Ok(())
}

#[tokio::test]
async fn a_process_that_dies_in_the_middle_of_its_search_leaves_each_row_once() -> Result<()> {
    let during = |millis| Step::DuringInsert(Duration::from_millis(millis));
    tokio::try_join!(
        dies_at("as the search begins", during(3)),
        dies_at("in its middle", during(9)),
        dies_at("when the rows are found", Step::BeforeCommit),
        dies_at("behind the dead letters", Step::BeforeRest),
        dies_at("behind the rest", Step::AfterRest),
    )?;
    Ok(())
}

async fn dies_at(name: &str, at: Step) -> Result<()> {
    let (scene, settings) = poisoned(&format!("{} {name}", test_name!())).await?;
    scene.topic.produce(numbered(RECORDS, PARTITIONS)).await?;
    let mut dying = settings.clone();
    dying.dies = Some(Dies { at, block: 3 });
    let mut first = start(&dying)?;
    let status = first.wait(Deadline::seconds(90)).await?;
    ensure!(status.code().is_none(), "{name}: {status}, and it was to be killed: {}", first.stderr());
    let (lag, before) = (scene.topic.lag(&scene.group).await?, scene.rows().await?);
    ensure!(lag > 0, "{name}: nothing was under way");
    let mut second = start(&settings)?;
    scene.all_committed(&second, Deadline::seconds(120)).await?;
    let letters = each_row_once_or_refused(&scene, &[&first, &second]).await.context(name.to_owned())?;
    let status = second.end(Signal::Terminate, Deadline::seconds(60)).await?;
    ensure!(status.success(), "{name}: {status}: {}", second.stderr());
    say(format_args!(
        "died {name}: {lag} records were not committed, {before} rows were in; {letters} letters in all"
    ));
    Ok(())
}

/// Two processes; the one that dies has its partition taken over by the other, and is started again.
#[tokio::test]
async fn the_partition_of_a_process_that_dies_in_its_search_goes_to_another() -> Result<()> {
    let (scene, settings) = poisoned(test_name!()).await?;
    let mut dying = settings.clone();
    dying.dies = Some(Dies { at: Step::BeforeRest, block: 2 });
    let mut first = start(&dying)?;
    let mut second = start(&settings)?;
    scene.topic.produce(numbered(RECORDS / 2, PARTITIONS)).await?;
    let status = first.wait(Deadline::seconds(90)).await?;
    ensure!(status.code().is_none(), "{status}, and it was to be killed: {}", first.stderr());
    scene.topic.produce(numbered(RECORDS / 2, PARTITIONS)).await?;
    scene.all_committed(&second, Deadline::seconds(120)).await?;
    each_row_once_or_refused(&scene, &[&first, &second]).await?;
    second.end(Signal::Terminate, Deadline::seconds(60)).await?;
    Ok(())
}

/// The constraint goes while a block with a refused row is under way: the row is in the table or in the dead letters, the others are in
/// the table, nothing is there twice.
#[tokio::test]
async fn a_table_that_takes_the_rows_after_all_gets_none_twice() -> Result<()> {
    let (scene, settings) = poisoned(test_name!()).await?;
    scene.topic.produce(numbered(RECORDS, PARTITIONS)).await?;
    let mut dying = settings.clone();
    dying.dies = Some(Dies { at: Step::AfterRest, block: 3 });
    let mut first = start(&dying)?;
    let status = first.wait(Deadline::seconds(90)).await?;
    ensure!(status.code().is_none(), "{status}, and it was to be killed: {}", first.stderr());
    scene.database.exec(&format!("ALTER TABLE {TABLE} DROP CONSTRAINT poison")).await?;
    let mut second = start(&settings)?;
    scene.all_committed(&second, Deadline::seconds(120)).await?;
    let (rows, distinct) = (
        scene.rows().await?,
        scene.database.number(&format!("SELECT uniqExact(partition, offset) FROM {TABLE}")).await?,
    );
    let lettered: BTreeSet<(i32, u64)> =
        letters(&first).iter().map(|letter| (letter.partition, letter.offset)).collect();
    ensure!(!lettered.is_empty() && letters(&second).is_empty());
    ensure!(
        rows == distinct && rows + lettered.len() as u64 == RECORDS,
        "{rows}, {distinct}, {}",
        lettered.len()
    );
    second.end(Signal::Terminate, Deadline::seconds(60)).await?;
    Ok(())
}

#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
struct Reading {
    id: u64,
    value: i32,
    json: String,
}

type Batch = Box<dyn Delivery<Output = InsertReceipt>>;

const COUNT: u64 = 100_000;
const BAD: u64 = 65_535;

/// A writer's block of [`COUNT`] rows, the bad one spoilt.
async fn batch(database: &Database, spoil: fn(&mut Reading)) -> Batch {
    let mut writer = ClickHouseWriter::<Reading>::new(database.server().url(), "t")
        .database(database.name())
        .max_rows(1 << 20);
    writer.start().await.unwrap();
    writer.start_exactly_once().await.unwrap();
    let mut rows = writer.rows();
    for id in 0..COUNT {
        let mut row = Reading { id, value: 1, json: "{}".into() };
        if id == BAD {
            spoil(&mut row);
        }
        rows.push(row).unwrap();
    }
    writer.accept(Chunk::new(rows, Vec::new())).unwrap();
    writer.freeze().unwrap()
}

fn attempt(token: &str, without: &[usize]) -> Attempt {
    Attempt::new(1).with_block(Block::new(token, SystemTime::now(), true).without(without))
}

async fn refused(batch: &Batch, token: &str) -> Vec<RejectedRow> {
    let error: DeliveryError = batch.deliver(attempt(token, &[])).await.unwrap_err();
    error.into_refused().map_err(|error| chain_text(&*error.into_source())).unwrap()
}

#[tokio::test]
async fn one_bad_row_of_100_000_is_found_without_writing_and_the_rest_takes_its_token() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    let ddl = "CREATE TABLE t (id UInt64, value Int32, json JSON, share UInt64 MATERIALIZED intDiv(100, value), at DateTime DEFAULT now() \
               TTL at + INTERVAL 1 DAY, CONSTRAINT low CHECK value < 1000) ENGINE = MergeTree ORDER BY id PARTITION BY id % 3 SETTINGS \
               non_replicated_deduplication_window = 1000";
    database.exec(ddl).await.unwrap();
    type Spoil = fn(&mut Reading);
    let spoils: [(&str, Spoil, u32); 3] = [
        ("a constraint", |row| row.value = 1000, 4),
        ("an unreadable value", |row| row.json = "{\"a\":".into(), 4),
        // The server does not say which row: 2·log2(100,000), the block itself, and the rest.
        ("a computed column", |row| row.value = 0, 35),
    ];
    for (what, spoil, most) in spoils {
        database.exec("TRUNCATE TABLE t").await.unwrap();
        let token = format!("token-of-{}", what.replace(' ', "-"));
        let block = batch(&database, spoil).await;
        let rows = refused(&block, &token).await;
        assert_eq!(rows.iter().map(|row| row.index as u64).collect::<Vec<_>>(), [BAD], "{what}");
        assert_eq!(database.count("t").await.unwrap(), 0, "{what}: looking has written");
        let delivered = block.deliver(attempt(&token, &[BAD as usize])).await.unwrap();
        let receipt = delivered.output;
        assert!(delivered.rejected.is_empty());
        assert_eq!((receipt.rows, receipt.rejected), (COUNT - 1, 1), "{what}");
        say(format_args!("{what}: {COUNT} rows, one bad: {} requests", receipt.inserts));
        assert!(receipt.inserts <= most, "{what}: {} requests, {most} are allowed", receipt.inserts);
        // Whoever makes the block again finds the same; and the server has its token.
        let again = batch(&database, spoil).await;
        assert_eq!(refused(&again, &token).await.len(), 1);
        again.deliver(attempt(&token, &[BAD as usize])).await.unwrap();
        // Also a part of it is dropped.
        again.deliver(attempt(&token, &[1, 2, BAD as usize])).await.unwrap();
        let there = database.number("SELECT count() * 1000000000 + uniqExact(id) FROM t").await.unwrap();
        assert_eq!(there, (COUNT - 1) * 1_000_000_000 + COUNT - 1, "{what}");
    }
}

#[tokio::test]
async fn a_block_that_is_refused_for_no_row_of_it_says_so() -> Result<()> {
    let (scene, settings) = poisoned(test_name!()).await?;
    // Not a constraint, and no computed column: only the table itself meets it.
    let view = format!(
        "CREATE MATERIALIZED VIEW checks ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 100 AS SELECT \
         throwIf(offset = 20) AS n FROM {TABLE}"
    );
    scene.database.exec(&view).await?;
    scene.topic.produce(numbered(100, PARTITIONS)).await?;
    let mut settings = settings;
    settings.give_up_after = Duration::from_secs(3);
    let mut consumer = start(&settings)?;
    wait_until(Deadline::seconds(60), "it has stopped", async || Ok(alive(&consumer).is_err())).await?;
    let status = consumer.wait(Deadline::seconds(60)).await?;
    ensure!(status.code() == Some(1), "{status}: {}", consumer.stderr());
    let good = letters(&consumer).into_iter().filter(|letter| !is_refused(letter.offset)).count();
    ensure!(good == 0, "{good} good records are in the dead letters");
    Ok(())
}
