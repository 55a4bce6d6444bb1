//! A second consumer joins and leaves under load, in each rebalance protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::consumer::{RowKind, Settings};
use integration_tests::{Deadline, Process, Signal, log_line, test_name, wait_until};

use crate::load::Load;
use crate::scene::{Scene, TABLE, alive, start};

const PARTITIONS: i32 = 8;

#[tokio::test]
async fn cooperative_rebalances_give_each_record_once_and_kept_partitions_make_progress() -> Result<()> {
    let outcome = join_and_leave(test_name!(), |settings| settings).await?;
    ensure!(outcome.duplicates == 0, "{} rows are duplicates", outcome.duplicates);
    outcome.kept_partitions_made_progress()
}

#[tokio::test]
async fn eager_rebalances_lose_no_record() -> Result<()> {
    let strategy = |settings: Settings| settings.kafka("partition.assignment.strategy", "range");
    join_and_leave(test_name!(), strategy).await.map(drop)
}

#[tokio::test]
async fn kip_848_rebalances_lose_no_record_and_kept_partitions_make_progress() -> Result<()> {
    let protocol = |settings: Settings| settings.kafka("group.protocol", "consumer");
    join_and_leave(test_name!(), protocol).await?.kept_partitions_made_progress()
}

/// The outcome, as read from the table.
struct Outcome {
    duplicates: u64,
    /// By consumer and partition: the first and the last time at which it mapped a record, in
    /// milliseconds.
    by_consumer: BTreeMap<u32, BTreeMap<u32, (i64, i64)>>,
    first: u32,
    second: u32,
    /// Longest time without a mapped record of a partition that the first consumer kept, in
    /// milliseconds.
    longest_pause: i64,
}

impl Outcome {
    /// The partitions that were never assigned to the second consumer.
    fn kept(&self) -> BTreeSet<u32> {
        let taken = &self.by_consumer[&self.second];
        self.by_consumer[&self.first]
            .keys()
            .copied()
            .filter(|partition| !taken.contains_key(partition))
            .collect()
    }

    /// Checks that the first consumer mapped its kept partitions before, during and after the
    /// second one's membership.
    fn kept_partitions_made_progress(&self) -> Result<()> {
        let kept = self.kept();
        ensure!(
            kept.len() == PARTITIONS as usize / 2,
            "the first consumer keeps half of the partitions: {kept:?} of {:?}",
            self.by_consumer
        );
        let second = &self.by_consumer[&self.second];
        let joined = second.values().map(|(first, _)| *first).min().unwrap_or_default();
        let left = second.values().map(|(_, last)| *last).max().unwrap_or_default();
        for partition in kept {
            let (first, last) = self.by_consumer[&self.first][&partition];
            ensure!(
                first < joined && left < last,
                "only the named partitions stop (R1): kept partition {partition} was mapped in {first}..{last}, and the second \
                 consumer's in {joined}..{left}"
            );
        }
        // A rebalance takes far less. Losing the membership and joining again takes far more.
        ensure!(
            self.longest_pause < 10_000,
            "only the named partitions stop (R1): a kept partition paused for {} ms",
            self.longest_pause
        );
        Ok(())
    }
}

async fn join_and_leave(name: &str, change: impl Fn(Settings) -> Settings) -> Result<Outcome> {
    let scene = Scene::new(name, PARTITIONS, RowKind::Traced).await?;
    let mut settings = change(scene.settings());
    // With so many commits, one comes while the group has no generation, and the broker rejects it.
    settings.commit_interval = Duration::from_millis(20);
    let load = Load::start(&scene.topic);
    let mut first = start(&settings)?;
    scene.rows_reach(2_000, &first, Deadline::seconds(60)).await?;

    let mut second = start(&settings)?;
    delivers_partitions(&scene, &first, &second, PARTITIONS as u64 / 2).await?;
    let status = second.end(Signal::Terminate, Deadline::seconds(60)).await?;
    ensure!(status.success(), "{status}: {}", second.stderr());

    // The first consumer has all partitions again.
    let before = scene.rows().await?;
    scene.rows_reach(before + 5_000, &first, Deadline::seconds(60)).await?;
    let produced = load.stop().await?;
    scene.all_committed(&first, Deadline::seconds(60)).await?;
    let duplicates = scene.nothing_is_missing(&produced).await?;
    let status = first.end(Signal::Terminate, Deadline::seconds(60)).await?;
    ensure!(status.success(), "{status}: {}", first.stderr());
    let outcome = outcome(&scene, duplicates, (first.pid(), second.pid())).await?;
    log_line(format_args!(
        "{name}: {} records, none missing, {duplicates} duplicates, {} of {PARTITIONS} partitions kept, their longest pause {} ms",
        produced.total(),
        outcome.kept().len(),
        outcome.longest_pause
    ));
    Ok(outcome)
}

/// Waits until the second consumer has delivered records of `partitions` partitions.
async fn delivers_partitions(
    scene: &Scene,
    first: &Process,
    second: &Process,
    partitions: u64,
) -> Result<()> {
    let query = format!("SELECT uniqExact(partition) FROM {TABLE} WHERE consumer = {}", second.pid());
    wait_until(Deadline::seconds(60), "the second consumer delivers its partitions", async || {
        alive(first)?;
        alive(second)?;
        Ok(scene.database.number(&query).await? >= partitions)
    })
    .await
    .map_err(|error| error.context(format!("first:\n{}second:\n{}", first.stderr(), second.stderr())))
}

async fn outcome(scene: &Scene, duplicates: u64, (first, second): (u32, u32)) -> Result<Outcome> {
    let client = scene.database.client();
    let times = format!(
        "SELECT consumer, partition, min(mapped_at), max(mapped_at) FROM {TABLE} GROUP BY consumer, partition"
    );
    let rows: Vec<(u32, u32, i64, i64)> = client.query(&times).fetch_all().await?;
    let mut by_consumer = BTreeMap::<u32, BTreeMap<u32, (i64, i64)>>::new();
    for (consumer, partition, from, to) in rows {
        by_consumer.entry(consumer).or_default().insert(partition, (from, to));
    }
    let pause = format!(
        "SELECT toInt64(max(pause)) FROM (SELECT mapped_at - lagInFrame(mapped_at, 1, mapped_at) OVER (PARTITION BY partition \
         ORDER BY offset) AS pause FROM {TABLE} WHERE partition NOT IN (SELECT partition FROM {TABLE} WHERE consumer = {second}))"
    );
    let longest_pause = client.query(&pause).fetch_one::<i64>().await?;
    Ok(Outcome { duplicates, by_consumer, first, second, longest_pause })
}
