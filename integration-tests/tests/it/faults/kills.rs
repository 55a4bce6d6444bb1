//! Members are killed under load: the others get their partitions when the session is over, from the last commit on.

use anyhow::Result;
use integration_tests::test_name;

use super::figures::Figures;
use super::group::{Group, Protocol, Sent, changes, random, rate};
use crate::load::Load;

#[tokio::test]
async fn kill_9_of_random_members_loses_nothing() -> Result<()> {
    let (eager, cooperative, next) = tokio::join!(
        kills(test_name!(), Protocol::Eager),
        kills(test_name!(), Protocol::Cooperative),
        kills(test_name!(), Protocol::Kip848),
    );
    for figures in [eager, cooperative, next] {
        figures?.report()?;
    }
    Ok(())
}

async fn kills(name: &str, protocol: Protocol) -> Result<Figures> {
    let mut group = Group::new(name, 6, protocol).await?;
    let mut random = random(&mut group);
    let load = Load::numbered(&group.scene.topic, 0, rate(2_000, 4_000));
    for _ in 0..3 {
        group.join().await?;
    }
    for _ in 0..changes(1, 10) {
        group.kill(random.usize(..group.len())).await?;
        group.join().await?;
    }
    let sent = Sent::new(&group.scene.topic, load.stop().await?);
    group.finish(Figures::row("kill -9", protocol), &[sent]).await
}
