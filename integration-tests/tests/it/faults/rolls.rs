//! A group changes its protocol, member by member, under load.
//!
//! librdkafka 2.12 accepts strategies of one rebalance protocol only (`rdkafka_assignor.c`, "online
//! migration between assignors with different protocol types is not supported"). The Java client's
//! way from eager to cooperative, with both strategies listed for a while, is therefore not
//! possible. Two ways are left. All members end before the first new one starts, or the group rolls
//! over KIP-848, whose coordinator accepts classic members of one kind beside new ones.
//!
//! A rolling change from cooperative-sticky to KIP-848 is not possible either. librdkafka's leader
//! copies the members' user data into their assignments (`rdkafka_request.c`, `rkgm_userdata`). The
//! broker rejects the conversion of such a group ("userData from a custom assignor would be lost"),
//! and librdkafka retries forever without a log line. New members can be started first. They get
//! partitions when the last old one has left.

use anyhow::{Context as _, Result, bail, ensure};
use integration_tests::{Deadline, test_name};

use super::figures::Figures;
use super::group::{Group, changes, now, rate};
use super::outcome::Sent;
use super::protocol::Protocol;
use crate::load::Load;
use crate::scene::start;

#[tokio::test]
async fn eager_and_cooperative_strategies_cannot_be_listed_together() -> Result<()> {
    let group = Group::new(test_name!(), 1, Protocol::Cooperative).await?;
    let settings = group.settings.clone().kafka("partition.assignment.strategy", "cooperative-sticky,range");
    let mut member = start(&settings)?;
    let status = member.wait(Deadline::seconds(60)).await?;
    ensure!(status.code() == Some(1), "the consumer did not stop by itself: {status}");
    let stderr = member.stderr();
    ensure!(
        stderr.contains("partition.assignment.strategy") && stderr.contains("same protocol type"),
        "{stderr}"
    );
    Ok(())
}

#[tokio::test]
async fn eager_to_cooperative_with_a_stop_loses_no_record() -> Result<()> {
    let mut group = Group::new(test_name!(), 4, Protocol::Eager).await?;
    let load = Load::numbered(&group.scene.topic, 0, rate(2_000, 10_000));
    for _ in 0..2 {
        group.join().await?;
    }
    group.all_leave().await?;
    group.protocol = Protocol::Cooperative;
    for _ in 0..2 {
        group.join().await?;
    }
    let sent = Sent::new(&group.scene.topic, load.stop().await?);
    group.finish("eager to cooperative, with a stop".to_owned(), &[sent]).await?.report()
}

#[tokio::test]
async fn cooperative_to_kip_848_loses_no_record() -> Result<()> {
    let mut group = Group::new(test_name!(), 6, Protocol::Cooperative).await?;
    let load = Load::numbered(&group.scene.topic, 0, rate(2_000, 10_000));
    let members = changes(2, 3);
    for _ in 0..members {
        group.join().await?;
    }
    // The broker does not accept the new members beside the old ones, and the old ones continue.
    group.protocol = Protocol::Kip848;
    for _ in 0..members {
        group.start_without_waiting()?;
    }
    group.wait_for_progress_except_last(members).await?;
    let from = now();
    for _ in 0..members {
        group.end(0).await?;
    }
    group.settle(from).await?;
    let sent = Sent::new(&group.scene.topic, load.stop().await?);
    group.notes.push("new members get partitions after the last old one has left".to_owned());
    group.finish("cooperative to KIP-848".to_owned(), &[sent]).await?.report()
}

#[tokio::test]
async fn rolling_from_eager_over_kip_848_to_cooperative_loses_no_record() -> Result<()> {
    roll(test_name!(), &[Protocol::Eager, Protocol::Kip848, Protocol::Cooperative]).await?.report()
}

/// Replaces the members one by one, protocol after protocol.
async fn roll(name: &str, protocols: &[Protocol]) -> Result<Figures> {
    let Some((first, next)) = protocols.split_first() else { bail!("no protocol") };
    let mut group = Group::new(name, 6, *first).await?;
    let load = Load::numbered(&group.scene.topic, 0, rate(2_000, 10_000));
    let members = changes(2, 3);
    for _ in 0..members {
        group.join().await?;
    }
    for protocol in next {
        for _ in 0..members {
            group.leave(0).await.with_context(|| format!("leaving for {protocol}"))?;
            group.protocol = *protocol;
            group.join().await.with_context(|| format!("joining with {protocol}"))?;
        }
    }
    let sent = Sent::new(&group.scene.topic, load.stop().await?);
    let names: Vec<String> = protocols.iter().map(Protocol::to_string).collect();
    group.finish(format!("rolling, {}", names.join(" to ")), &[sent]).await
}
