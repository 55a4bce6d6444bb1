//! Members join and leave in order under load.

use std::time::Duration;

use anyhow::Result;
use integration_tests::test_name;

use super::figures::Figures;
use super::group::{DEFAULT_SESSION, Group, changes, now, random, rate};
use super::outcome::Sent;
use super::protocol::{Protocol, in_all_protocols};
use crate::load::Load;

const PARTITIONS: i32 = 8;

/// Maximum number of members.
const MAX_MEMBERS: usize = 4;

#[tokio::test]
async fn cooperative_joins_and_leaves_give_each_record_once() -> Result<()> {
    joins_and_leaves(test_name!(), Protocol::Cooperative).await?.report_exact()
}

#[tokio::test]
async fn eager_joins_and_leaves_lose_no_record() -> Result<()> {
    joins_and_leaves(test_name!(), Protocol::Eager).await?.report()
}

#[tokio::test]
async fn kip_848_joins_and_leaves_lose_no_record() -> Result<()> {
    joins_and_leaves(test_name!(), Protocol::Kip848).await?.report()
}

/// Half of the members end within a moment, as when a deployment is scaled down. The rebalance that
/// the first one starts coincides with the last commit of the second one.
#[tokio::test]
async fn leaves_within_a_moment_lose_no_record() -> Result<()> {
    let name = test_name!();
    let [eager, cooperative, kip_848] =
        in_all_protocols(async |protocol| leaves_within_a_moment(name, protocol).await).await;
    eager?.report()?;
    cooperative?.report_exact()?;
    kip_848?.report()
}

async fn leaves_within_a_moment(name: &str, protocol: Protocol) -> Result<Figures> {
    let mut group = Group::new(name, PARTITIONS, protocol).await?;
    group.session = DEFAULT_SESSION;
    let mut random = random(&mut group);
    let load = Load::numbered(&group.scene.topic, 0, rate(2_000, 4_000));
    group.join().await?;
    for _ in 0..changes(1, 10) {
        while group.len() < MAX_MEMBERS {
            group.start_without_waiting()?;
        }
        group.settle(now()).await?;
        let from = now();
        for _ in 0..MAX_MEMBERS / 2 {
            group.end(random.usize(..group.len())).await?;
            // About the time in which the others notice the rebalance and join again.
            tokio::time::sleep(Duration::from_millis(random.u64(..600))).await;
        }
        group.settle(from).await?;
    }
    let sent = Sent::new(&group.scene.topic, load.stop().await?);
    group.finish(Figures::row("two of four leave within a moment", protocol), &[sent]).await
}

async fn joins_and_leaves(name: &str, protocol: Protocol) -> Result<Figures> {
    let mut group = Group::new(name, PARTITIONS, protocol).await?;
    group.session = DEFAULT_SESSION;
    let mut random = random(&mut group);
    let load = Load::numbered(&group.scene.topic, 0, rate(4_000, 10_000));
    group.join().await?;
    let each = changes(2, 20);
    let (mut joins, mut leaves) = (each, each);
    while joins + leaves > 0 {
        // Chooses at random, weighted by the remaining numbers, among the possible ones.
        let leave = group.len() > 1
            && (group.len() == MAX_MEMBERS || joins == 0 || random.usize(..joins + leaves) < leaves);
        if leave && leaves > 0 {
            group.leave(random.usize(..group.len())).await?;
            leaves -= 1;
        } else {
            group.join().await?;
            joins = joins.saturating_sub(1);
        }
    }
    let sent = Sent::new(&group.scene.topic, load.stop().await?);
    group.finish(Figures::row("joins and leaves", protocol), &[sent]).await
}
