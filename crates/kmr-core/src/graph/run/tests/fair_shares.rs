//! Tests of fair shares: a slow mapper does not starve others, and a slow sink pauses no partition.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::kit::{Call, start_with_budget};
use crate::error::BoxError;
use crate::record::OwnedRecord;
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};

#[tokio::test(start_paused = true)]
async fn a_partition_with_a_stuck_mapper_is_paused_and_others_continue() {
    let (open, gate) = watch::channel(false);
    let gate = Arc::new(gate);
    let map = move |record: OwnedRecord| {
        let mut gate = (*gate).clone();
        async move {
            if record.partition() == 0 {
                gate.wait_for(|open| *open).await?;
            }
            Ok::<_, BoxError>((record.partition(), record.offset()))
        }
    };
    let sink = Collect::default();
    let mut consumer = start_with_budget(Strategy::new().map(map).reduce(sink.clone()), 100_000).await;
    consumer.assign(&[0, 1]).await;
    for offset in 0..100 {
        consumer.fetch_sized(0, [offset], 5_000);
    }
    for offset in 0..50 {
        consumer.fetch_sized(1, [offset], 5_000);
    }
    let started = Instant::now();
    consumer.until_committed(1, 50).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(consumer.calls().contains(&Call::Paused(0)) && !consumer.calls().contains(&Call::Paused(1)));
    assert!(
        consumer.budget.held() < 40_000,
        "the stuck partition holds only its fair share: {}",
        consumer.budget.held()
    );
    assert_eq!(consumer.committed(0), None);
    open.send_replace(true);
    consumer.until_committed(0, 100).await;
    assert!(consumer.calls().contains(&Call::Resumed(0)));
    assert_eq!(sink.rows().len(), 150);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_stuck_mappers_leave_room_for_the_others() {
    for stuck in [4, 9, 32] {
        let map = move |record: OwnedRecord| async move {
            if record.partition() < stuck {
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>((record.partition(), record.offset()))
        };
        let strategy = Strategy::new().map(map).reduce(Collect::default());
        let mut consumer = start_with_budget(strategy, 1_000_000).await;
        consumer.assign(&(0..=stuck).collect::<Vec<i32>>()).await;
        for number in 0..=stuck {
            (0..300).for_each(|offset| consumer.fetch_sized(number, [offset], 5_000));
        }
        consumer.until_committed(stuck, 300).await;
        assert!(!consumer.calls().contains(&Call::Paused(stuck)));
        assert!(consumer.budget.held() < 800_000, "{}", consumer.budget.held());
        consumer.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_mapper_does_not_keep_an_open_batch_from_freeing_its_bytes() {
    let map = |record: OwnedRecord| async move {
        if record.partition() == 0 {
            std::future::pending::<()>().await;
        }
        Ok::<_, BoxError>((record.partition(), record.offset()))
    };
    let sink = Collect::default().with_options(|o| o.with_max_age(Duration::MAX));
    let mut consumer = start_with_budget(Strategy::new().map(map).reduce(sink), 1_000_000).await;
    consumer.assign(&[0, 1]).await;
    (0..300).for_each(|offset| consumer.fetch_sized(0, [offset], 5_000));
    (0..300).for_each(|offset| consumer.fetch_sized(1, [offset], 5_000));
    let started = Instant::now();
    consumer.until_true("more than the budget", || consumer.committed(1) > Some(200)).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_single_partition_may_use_the_whole_budget() {
    let map = |record: OwnedRecord| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, BoxError>((record.partition(), record.offset()))
    };
    let mut consumer = start_with_budget(Strategy::new().map(map).reduce(Collect::default()), 100_000).await;
    consumer.assign(&[0]).await;
    for offset in 0..100 {
        consumer.fetch_sized(0, [offset], 5_000);
    }
    consumer.until_true("budget used", || consumer.budget.held() > 90_000).await;
    consumer.until_committed(0, 100).await;
    assert!(!consumer.calls().contains(&Call::Paused(0)));
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stalled_sink_pauses_no_partition() {
    let sink = Collect::default();
    sink.behave(Behaviour::Stall);
    let mut consumer =
        start_with_budget(Strategy::new().map(super::kit::place).reduce(sink.clone()), 1_000_000).await;
    consumer.assign(&[0, 1]).await;
    for offset in 0..500 {
        consumer.fetch_sized(0, [offset], 5_000);
        consumer.fetch_sized(1, [offset], 5_000);
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    sink.behave(Behaviour::Deliver);
    consumer
        .until(|calls| calls.contains(&Call::Committed(0, 500)) && calls.contains(&Call::Committed(1, 500)))
        .await;
    assert!(!consumer.calls().iter().any(|call| matches!(call, Call::Paused(_))), "{:?}", consumer.calls());
    consumer.stop().await.unwrap();
}
