//! Tests of what the group does while a shutdown drains: partitions that may have another owner are
//! not committed (C5, E9).

use std::time::Duration;

use tokio::time::sleep;

use super::kit::{Scenario, TestConsumer, place, start_exactly_once};
use crate::error::Error;
use crate::member::Change;
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};

/// What the group does during the drain.
#[derive(Clone, Copy, Debug)]
enum During {
    Nothing,
    Assigns,
    RevokesTheOther,
    Loses,
    FailsTheClient,
}

impl During {
    async fn apply(self, consumer: &mut TestConsumer) {
        match self {
            Self::Nothing => {}
            Self::Assigns => _ = consumer.rebalance(Change::Assign, &[2]),
            Self::RevokesTheOther => _ = consumer.rebalance(Change::Revoke, &[0]),
            Self::Loses => _ = consumer.rebalance(Change::Lose, &[0, 1]),
            Self::FailsTheClient => consumer.fail_client(Error::Client {
                operation: "consume".into(),
                source: "fenced".into(),
                retryable: false,
            }),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The offsets of the partitions 0 and 1 that a shutdown commits. Partition 1 is being revoked when
/// it begins.
async fn committed_after(during: During) -> [Option<i64>; 2] {
    let scenario = Scenario::assigned(&[0, 1]).stalled_sink().mapped(0, 0..5).mapped(1, 0..7);
    let (mut consumer, sink) = scenario.start().await;
    consumer.rebalance(Change::Revoke, &[1]);
    sleep(Duration::from_millis(100)).await;
    consumer.request_stop();
    sleep(Duration::from_millis(100)).await;
    assert!(!consumer.has_ended(), "the consumer drains");
    during.apply(&mut consumer).await;
    sink.behave(Behaviour::Deliver);
    consumer.until_ended().await;
    [0, 1].map(|number| consumer.committed(number))
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_finishes_the_revoke_that_the_group_waits_for() {
    assert_eq!(committed_after(During::Nothing).await, [Some(5), Some(7)]);
}

/// The simulator found it: the group had given the partition to another member, and the commit set
/// that member's offset back.
#[tokio::test(start_paused = true)]
async fn a_shutdown_drops_the_revoke_that_the_group_no_longer_waits_for() {
    for during in [During::Assigns, During::RevokesTheOther, During::FailsTheClient] {
        assert_eq!(committed_after(during).await, [Some(5), None], "{during:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_commits_no_lost_partition() {
    assert_eq!(committed_after(During::Loses).await, [None, None]);
}

/// The next owner rebuilds the planned blocks, so nothing of them may be committed any more.
#[tokio::test(start_paused = true)]
async fn a_shutdown_in_exactly_once_mode_ends_with_the_next_rebalance() {
    for during in [During::Assigns, During::RevokesTheOther, During::Loses] {
        let sink = Collect::default().exactly_once(|(partition, offset)| format!("{partition} {offset};"));
        sink.behave(Behaviour::Stall);
        let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink.clone())).await;
        consumer.assign(&[0, 1]).await;
        consumer.fetch(0, 0..5);
        consumer.until_mapped(5).await;
        consumer.request_stop();
        sleep(Duration::from_secs(5)).await;
        assert!(!consumer.has_ended(), "the consumer drains");
        let before = consumer.committed(0);
        during.apply(&mut consumer).await;
        sink.behave(Behaviour::Deliver);
        consumer.until_ended().await;
        assert_eq!(consumer.committed(0), before, "{during:?}");
    }
}
