//! Tests of listeners: which events they receive, and when.

use std::sync::{Arc, Mutex};

use super::kit::{Broker, options, partition, place, start_with};
use crate::graph::options::GraphOptions;
use crate::listeners::{CommitEvent, Listeners, RebalanceEvent};
use crate::member::Change;
use crate::strategy::Strategy;
use crate::test_reducer::Collect;

#[tokio::test(start_paused = true)]
async fn listeners_receive_rebalances_and_commits_and_their_panics_do_not_stop_the_consumer() {
    let rebalances = Arc::<Mutex<Vec<RebalanceEvent>>>::default();
    let commits = Arc::<Mutex<Vec<CommitEvent>>>::default();
    let listeners = Listeners {
        rebalance: Some(Arc::new({
            let rebalances = rebalances.clone();
            move |event: &RebalanceEvent| {
                rebalances.lock().unwrap().push(event.clone());
                assert!(!matches!(event, RebalanceEvent::Lost(_)), "a listener that panics");
            }
        })),
        commit: Some(Arc::new({
            let commits = commits.clone();
            move |event: &CommitEvent| commits.lock().unwrap().push(event.clone())
        })),
    };
    let options = GraphOptions { listeners, ..options() };
    let mut consumer =
        start_with(Strategy::new().map(place).reduce(Collect::default()), 1 << 20, options).await;
    consumer.start_at(1, 70, false);
    consumer.assign(&[0, 1, 2]).await;
    consumer.broker(Broker::FailsRetryably);
    consumer.fetch(0, 0..5);
    consumer.until_true("a failed commit", || !commits.lock().unwrap().is_empty()).await;
    consumer.broker(Broker::Accepts);
    let id = consumer.rebalance(Change::Revoke, &[0]);
    consumer.until_released(id).await;
    let id = consumer.rebalance(Change::Lose, &[1]);
    consumer.until_released(id).await;
    consumer.lose_client().await;
    consumer.assign(&[2]).await;
    consumer.stop().await.unwrap();
    let event = |partition, error: Option<&str>| CommitEvent {
        partition,
        offset: 5,
        error: error.map(str::to_owned),
    };
    let commits = commits.lock().unwrap().clone();
    assert_eq!(commits.first(), Some(&event(partition(0), Some("rebalance in progress"))));
    assert_eq!(commits.last(), Some(&event(partition(0), None)));
    assert_eq!(
        *rebalances.lock().unwrap(),
        [
            RebalanceEvent::Assigned(vec![
                (partition(0), None),
                (partition(1), Some(70)),
                (partition(2), None)
            ]),
            RebalanceEvent::Revoked(vec![partition(0)]),
            RebalanceEvent::Lost(vec![partition(1)]),
            RebalanceEvent::Lost(vec![partition(2)]),
            RebalanceEvent::Assigned(vec![(partition(2), None)]),
            RebalanceEvent::Revoked(vec![partition(2)]),
        ]
    );
}
