//! The sink stalls for longer than `max.poll.interval.ms`. kmr continues to poll, so the member
//! stays in the group.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration_tests::consumer::{Event, SinkKind};
use integration_tests::{Deadline, Signal, test_name, wait_until};

use super::figures::Figures;
use super::group::{Group, rate};
use super::outcome::Sent;
use super::protocol::{Protocol, in_all_protocols};
use crate::load::Load;

/// About the shortest valid timeout. A commit (10 s), a heartbeat (3 s) and two attempts have to
/// fit into the drain timeout, and that into the poll interval (answered in time, R3).
const ATTEMPT: Duration = Duration::from_secs(3);
const DRAIN: Duration = Duration::from_secs(20);
const MAX_POLL: Duration = Duration::from_secs(21);
const STALL: Duration = Duration::from_secs(27);

#[tokio::test]
async fn a_sink_that_stalls_longer_than_the_poll_interval_keeps_its_partitions() -> Result<()> {
    let name = test_name!();
    for figures in in_all_protocols(async |protocol| stall(name, protocol).await).await {
        figures?.report()?;
    }
    Ok(())
}

async fn stall(name: &str, protocol: Protocol) -> Result<Figures> {
    let mut group = Group::new(name, 4, protocol).await?;
    let settings = group.settings.clone();
    group.settings = settings.kafka("max.poll.interval.ms", &MAX_POLL.as_millis().to_string());
    group.settings.sink = SinkKind::Stalled;
    group.settings.dead_letters = false;
    group.settings.attempt_timeout = Some(ATTEMPT);
    group.settings.drain_timeout = Some(DRAIN);
    let load = Load::numbered(&group.scene.topic, 0, rate(1_000, 4_000));
    group.start_without_waiting()?;
    let mapped =
        |group: &Group| matches!(group.last_events()[..], [Some(Event::Progress { records: 1.., .. })]);
    let assigned = async || {
        group.alive()?;
        Ok(mapped(&group))
    };
    wait_until(Deadline::seconds(60), "the member has its partitions", assigned).await?;

    let (stalled, before) = (Instant::now(), group.rebalances());
    let mut kept = true;
    let over = async || {
        group.alive()?;
        kept &= group.rebalances() == before;
        Ok(stalled.elapsed() >= STALL)
    };
    wait_until(Deadline::after(STALL * 2), "the stall is over", over).await?;
    ensure!(kept, "{protocol}: a rebalance during the stall: {:?}", group.last_events());
    ensure!(group.scene.rows().await? == 0, "a stalled sink stores no rows");
    if let Some(state) = group.scene.topic.kafka().group_state(&group.scene.group).await?
        && protocol != Protocol::Kip848
    {
        ensure!(
            state.members == 1 && state.state == "Stable",
            "{protocol}: the member stays in a stable group: {state:?}"
        );
    }
    group.signal(Signal::Continue)?;
    group.wait_for_progress().await?;
    let sent = Sent::new(&group.scene.topic, load.stop().await?);
    group.notes.push(format!("stalled {STALL:?}, max.poll.interval {MAX_POLL:?}"));
    group.finish(Figures::row("stalled sink", protocol), &[sent]).await
}
