//! The broker restarts under load.

use std::time::Duration;

use anyhow::Result;
use integration_tests::{Kafka, soaking, test_name};

use super::figures::Figures;
use super::group::{Group, Protocol, Sent, now, rate};
use crate::load::Load;

#[tokio::test]
async fn a_broker_that_restarts_loses_nothing() -> Result<()> {
    let kafka = Kafka::own().await?;
    let mut groups = Vec::new();
    for protocol in Protocol::ALL {
        let mut group = Group::on(&kafka, test_name!(), 4, protocol).await?;
        // The load waits out the restart: an idempotent producer delivers each record once.
        let load = Load::numbered(&group.scene.topic, 0, rate(2_000, 4_000));
        group.join().await?;
        group.join().await?;
        groups.push((group, load));
    }
    let from = now();
    kafka.stop().await?;
    // Nothing can be waited for: this is how long the broker is away.
    tokio::time::sleep(Duration::from_secs(if soaking() { 15 } else { 4 })).await;
    kafka.start().await?;
    let away = Duration::from_millis((now() - from).unsigned_abs());
    let mut figures = Vec::new();
    for (mut group, load) in groups {
        group.settle(from).await?;
        let sent = Sent::new(&group.scene.topic, load.stop().await?);
        group.notes.push(format!("away for {away:?}, its stop and start included"));
        let row = Figures::row("broker restart", group.protocol);
        figures.push(group.finish(row, &[sent]).await?);
    }
    figures.iter().try_for_each(Figures::report)
}
