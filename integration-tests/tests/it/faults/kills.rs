//! Members are killed under load. When the session ends, the others get their partitions and
//! continue at the last commit.

use anyhow::Result;
use integration_tests::test_name;

use super::figures::Figures;
use super::group::{Group, changes, random, rate};
use super::outcome::Sent;
use super::protocol::{Protocol, in_all_protocols};
use crate::load::Load;

#[tokio::test]
async fn kill_9_of_random_members_loses_no_record() -> Result<()> {
    let name = test_name!();
    for figures in in_all_protocols(async |protocol| kills(name, protocol).await).await {
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
