//! Members join and leave in order under load.

use std::time::Duration;

use anyhow::Result;
use integration_tests::test_name;

use super::figures::Figures;
use super::group::{Group, NOBODY_IS_KILLED, Protocol, Sent, changes, now, random, rate};
use crate::load::Load;

const PARTITIONS: i32 = 8;

/// The most members at once.
const MOST: usize = 4;

#[tokio::test]
async fn joins_and_leaves_lose_and_double_nothing_cooperative() -> Result<()> {
    joins_and_leaves(test_name!(), Protocol::Cooperative).await?.report_exact()
}

#[tokio::test]
async fn joins_and_leaves_lose_nothing_eager() -> Result<()> {
    joins_and_leaves(test_name!(), Protocol::Eager).await?.report()
}

#[tokio::test]
async fn joins_and_leaves_lose_nothing_kip_848() -> Result<()> {
    joins_and_leaves(test_name!(), Protocol::Kip848).await?.report()
}

/// Half of the members end within a moment, as when a deployment is scaled down: the rebalance that the first one starts meets
/// the last commit of the second one.
#[tokio::test]
async fn leaving_within_a_moment_loses_nothing() -> Result<()> {
    let (eager, cooperative, next) = tokio::join!(
        leaves_within_a_moment(test_name!(), Protocol::Eager),
        leaves_within_a_moment(test_name!(), Protocol::Cooperative),
        leaves_within_a_moment(test_name!(), Protocol::Kip848),
    );
    eager?.report()?;
    cooperative?.report_exact()?;
    next?.report()
}

async fn leaves_within_a_moment(name: &str, protocol: Protocol) -> Result<Figures> {
    let mut group = Group::new(name, PARTITIONS, protocol).await?;
    group.session = NOBODY_IS_KILLED;
    let mut random = random(&mut group);
    let load = Load::numbered(&group.scene.topic, 0, rate(2_000, 4_000));
    group.join().await?;
    for _ in 0..changes(1, 10) {
        while group.len() < MOST {
            group.start_without_waiting()?;
        }
        group.settle(now()).await?;
        let from = now();
        for _ in 0..MOST / 2 {
            group.end(random.usize(..group.len())).await?;
            // About as long as it takes the others to notice: this is when they join again.
            tokio::time::sleep(Duration::from_millis(random.u64(..600))).await;
        }
        group.settle(from).await?;
    }
    let sent = Sent::new(&group.scene.topic, load.stop().await?);
    group.finish(Figures::row("two of four leave within a moment", protocol), &[sent]).await
}

async fn joins_and_leaves(name: &str, protocol: Protocol) -> Result<Figures> {
    let mut group = Group::new(name, PARTITIONS, protocol).await?;
    group.session = NOBODY_IS_KILLED;
    let mut random = random(&mut group);
    let load = Load::numbered(&group.scene.topic, 0, rate(4_000, 10_000));
    group.join().await?;
    let each = changes(2, 20);
    let (mut joins, mut leaves) = (each, each);
    while joins + leaves > 0 {
        // Whoever can, the more likely the more of it is left.
        let leave =
            group.len() > 1 && (group.len() == MOST || joins == 0 || random.usize(..joins + leaves) < leaves);
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
