//! Bounded runs: nothing behind the end is processed, and the consumer ends when all is done, and not before.

use std::time::Duration;

use tokio::time::Instant;

use super::kit::{Call, Running, options, partition, place, start_with};
use crate::config::Until;
use crate::error::BoxError;
use crate::graph::options::GraphOptions;
use crate::member::{Change, Fetched};
use crate::record::OwnedRecord;
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};

/// A consumer up to the end of a log that holds 3..9.
async fn until_end(sink: &Collect<(i32, i64)>) -> Running {
    bounded(sink, Until::End).await
}

async fn bounded(sink: &Collect<(i32, i64)>, until: Until) -> Running {
    let options = GraphOptions { until: Some(until), ..options() };
    start_with(Strategy::new().map(place).reduce(sink.clone()), 1 << 20, options).await
}

fn end(number: i32, offset: i64) -> Fetched {
    Fetched::End { topic: "t".into(), partition: number, offset }
}

async fn never_ends(consumer: &Running) {
    // Less than a consumer waits that is assigned nothing.
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(!consumer.has_ended());
}

#[tokio::test(start_paused = true)]
async fn it_ends_at_the_end_and_leaves_what_is_behind_it() {
    let sink = Collect::default().with_options(|o| o.with_max_age(Duration::from_secs(3600)));
    let mut consumer = until_end(&sink).await;
    never_ends(&consumer).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 3..6);
    consumer.fetch(0, 6..15);
    never_ends(&consumer).await;
    consumer.fetch(1, [4, 8]);
    consumer.until_true("ended", || consumer.has_ended()).await;
    assert_eq!((consumer.committed(0), consumer.committed(1)), (Some(9), Some(9)));
    assert_eq!(sink.rows().len(), 8, "{:?}", sink.rows());
    assert!(consumer.calls().contains(&Call::Paused(0)), "nothing more is fetched of it");
    consumer.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn gaps_at_the_end_of_the_log_do_not_keep_it_waiting() {
    let sink = Collect::default();
    sink.behave(Behaviour::Stall);
    let mut consumer = until_end(&sink).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 3..6);
    consumer.fetch_event(end(0, 8));
    never_ends(&consumer).await;
    consumer.fetch_event(end(0, 9));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!consumer.has_ended(), "what is under way is finished first");
    sink.behave(Behaviour::Deliver);
    consumer.until_true("ended", || consumer.has_ended()).await;
    assert_eq!(consumer.committed(0), Some(6));
    consumer.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_end_is_found_out_once_and_holds_over_rebalances_and_clients() {
    let sink = Collect::default();
    let mut consumer = until_end(&sink).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 3..5);
    consumer.log(3, 30, 25);
    let id = consumer.rebalance(Change::Revoke, &[0]);
    consumer.until(|calls| calls.contains(&Call::Unassigned(id))).await;
    never_ends(&consumer).await;
    consumer.assign(&[0]).await;
    consumer.lose_client().await;
    never_ends(&consumer).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 5..20);
    consumer.until_true("ended", || consumer.has_ended()).await;
    assert_eq!(consumer.committed(0), Some(9));
    consumer.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_timestamp_ends_it_in_front_of_the_first_record_that_is_as_young() {
    let sink = Collect::default();
    let mut consumer = bounded(&sink, Until::Timestamp(1)).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 3..9);
    consumer.until_true("ended", || consumer.has_ended()).await;
    assert_eq!(consumer.committed(0), Some(5));
    consumer.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_starts_at_its_end_is_done_at_once() {
    let mut consumer = until_end(&Collect::default()).await;
    consumer.start_at(0, 9, false);
    consumer.rebalance(Change::Assign, &[0]);
    let began = Instant::now();
    consumer.ended().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_late_joiner_whose_first_assignment_is_empty_does_its_share() {
    let mut consumer = until_end(&Collect::default()).await;
    consumer.assign(&[]).await;
    never_ends(&consumer).await;
    consumer.assign(&[0]).await;
    never_ends(&consumer).await;
    consumer.fetch(0, 3..9);
    consumer.until_true("ended", || consumer.has_ended()).await;
    assert_eq!(consumer.committed(0), Some(9));
    consumer.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_assigned_nothing_ends_after_a_while_whether_it_is_told_so_or_not() {
    for told in [false, true] {
        let mut consumer = until_end(&Collect::default()).await;
        never_ends(&consumer).await;
        if told {
            consumer.assign(&[]).await;
            never_ends(&consumer).await; // the time counts from the rebalance
        }
        let began = Instant::now();
        consumer.ended().await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_partition_is_not_done() {
    let mut consumer = until_end(&Collect::default()).await;
    consumer.remote.pause(|will| will.partitions.extend([partition(0)]));
    consumer.assign(&[0, 1]).await;
    consumer.until(|calls| calls.contains(&Call::Paused(0))).await;
    consumer.fetch(1, 3..9);
    never_ends(&consumer).await;
    consumer.remote.pause(|will| will.partitions.clear());
    consumer.until(|calls| calls.contains(&Call::Resumed(0))).await;
    consumer.fetch(0, 3..9);
    consumer.ended().await.unwrap();
}

/// What is read and not mapped yet is dropped by a stop: the run is not over before.
#[tokio::test(start_paused = true)]
async fn it_ends_when_all_is_mapped_and_not_when_all_is_read() {
    async fn slow(record: OwnedRecord) -> Result<(i32, i64), BoxError> {
        tokio::time::sleep(Duration::from_secs(30)).await;
        Ok((record.partition(), record.offset()))
    }
    let sink = Collect::default();
    let options = GraphOptions { until: Some(Until::End), ..options() };
    let mut consumer = start_with(Strategy::new().map(slow).reduce(sink.clone()), 1 << 20, options).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 3..9);
    consumer.until_true("ended", || consumer.has_ended()).await;
    assert_eq!((consumer.committed(0), sink.rows().len()), (Some(9), 6));
    consumer.ended().await.unwrap();
}
