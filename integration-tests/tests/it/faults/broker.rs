//! The broker restarts under load.

use std::time::Duration;

use anyhow::Result;
use integration_tests::{Kafka, soaking, test_name};

use super::figures::Figures;
use super::group::{Group, now, rate};
use super::outcome::Sent;
use super::protocol::Protocol;
use crate::load::Load;

#[tokio::test]
async fn a_broker_restart_loses_no_record() -> Result<()> {
    let kafka = Kafka::own().await?;
    let mut groups = Vec::new();
    for protocol in Protocol::ALL {
        let mut group = Group::on(&kafka, test_name!(), 4, protocol).await?;
        // The load continues after the restart, because its idempotent producer delivers each
        // record once.
        let load = Load::numbered(&group.scene.topic, 0, rate(2_000, 4_000));
        group.join().await?;
        group.join().await?;
        groups.push((group, load));
    }
    let from = now();
    kafka.stop().await?;
    // There is no fact to wait for. This is the length of the outage.
    tokio::time::sleep(Duration::from_secs(if soaking() { 15 } else { 4 })).await;
    kafka.start().await?;
    let outage = Duration::from_millis((now() - from).unsigned_abs());
    let mut figures = Vec::new();
    for (mut group, load) in groups {
        group.settle(from).await?;
        let sent = Sent::new(&group.scene.topic, load.stop().await?);
        group.notes.push(format!("unavailable for {outage:?}, with stop and start"));
        let row = Figures::row("broker restart", group.protocol);
        figures.push(group.finish(row, &[sent]).await?);
    }
    figures.iter().try_for_each(Figures::report)
}
