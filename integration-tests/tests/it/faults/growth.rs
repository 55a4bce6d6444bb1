//! A topic gets more partitions under load.

use anyhow::Result;
use integration_tests::test_name;

use super::figures::Figures;
use super::group::{Group, NOBODY_IS_KILLED, Protocol, Sent, now, rate};
use crate::load::Load;

#[tokio::test]
async fn records_of_new_partitions_all_arrive() -> Result<()> {
    let (eager, cooperative, next) = tokio::join!(
        growth(test_name!(), Protocol::Eager),
        growth(test_name!(), Protocol::Cooperative),
        growth(test_name!(), Protocol::Kip848),
    );
    eager?.report()?;
    cooperative?.report_exact()?;
    next?.report()
}

async fn growth(name: &str, protocol: Protocol) -> Result<Figures> {
    let mut group = Group::new(name, 4, protocol).await?;
    group.session = NOBODY_IS_KILLED;
    // Five minutes by default: so long a classic member would not see the new ones.
    group.settings = group.settings.clone().kafka("topic.metadata.refresh.interval.ms", "1000");
    let topic = group.scene.topic.clone();
    let load = Load::numbered(&topic, 0, rate(2_000, 5_000));
    for _ in 0..2 {
        group.join().await?;
    }
    let from = now();
    let grown = topic.grow(8).await?;
    let more = Load::numbered(&grown, 0, rate(2_000, 5_000));
    group.partitions = 8;
    group.settle(from).await?;
    let mut produced = load.stop().await?;
    for (partition, count) in more.stop().await?.records {
        *produced.records.entry(partition).or_default() += count;
    }
    group
        .finish(Figures::row("partitions raised from 4 to 8", protocol), &[Sent::new(&grown, produced)])
        .await
}
