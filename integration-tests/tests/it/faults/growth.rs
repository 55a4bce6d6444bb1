//! Partitions are added to a topic under load.

use anyhow::Result;
use integration_tests::test_name;

use super::figures::Figures;
use super::group::{DEFAULT_SESSION, Group, now, rate};
use super::outcome::Sent;
use super::protocol::{Protocol, in_all_protocols};
use crate::load::Load;

#[tokio::test]
async fn records_of_new_partitions_all_arrive() -> Result<()> {
    let name = test_name!();
    let [eager, cooperative, kip_848] = in_all_protocols(async |protocol| growth(name, protocol).await).await;
    eager?.report()?;
    cooperative?.report_exact()?;
    kip_848?.report()
}

async fn growth(name: &str, protocol: Protocol) -> Result<Figures> {
    let mut group = Group::new(name, 4, protocol).await?;
    group.session = DEFAULT_SESSION;
    // The default is five minutes, for which a classic member would not see the new partitions.
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
