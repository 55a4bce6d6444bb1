//! Tests of exactly-once mode: plans before inserts, rebuilt blocks, and offsets that are rejected.

use std::sync::Arc;
use std::time::Duration;

use super::kit::{
    Broker, Call, DeadLetters, TestConsumer, log, options, place, start_exactly_once, start_with,
};
use crate::commit_metadata::{CommitMetadata, IdleMarker, Plan};
use crate::error::{BoxError, Error};
use crate::graph::options::GraphOptions;
use crate::member::{Change, Fetched};
use crate::record::{OwnedRecord, Record};
use crate::reducer::{Attempt, Chunk, Reducer};
use crate::stage::Concurrency;
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};

type Place = (i32, i64);
/// Bytes of a row. Blocks grow past a limit of rows, but not past one of bytes.
const ROW: usize = size_of::<Place>();

fn text((partition, offset): &Place) -> String {
    format!("{partition} {offset};")
}

fn sink() -> Collect<Place> {
    Collect::default().exactly_once(text)
}

/// The rows of partition 0 at these offsets.
fn places(offsets: impl IntoIterator<Item = i64>) -> Vec<Place> {
    offsets.into_iter().map(|offset| (0, offset)).collect()
}

/// The plan of a block of partition 0 that an earlier process has committed.
fn plan(offsets: impl IntoIterator<Item = i64>, budget: u64) -> Plan {
    let offsets: Vec<i64> = offsets.into_iter().collect();
    let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
    let mut sink = sink();
    sink.accept(Chunk::new(places(offsets), Vec::new())).unwrap();
    let rows = sink.freeze().unwrap().fingerprint().unwrap();
    let (log, epoch) = (log().id, 3);
    let token = "the token of the plan".replace(' ', "-").into();
    Plan { log, epoch, first, last, rows, budget, token, created: 5_000 }
}

fn plans(committed_metadata: &[(i64, CommitMetadata)]) -> Vec<(i64, i64)> {
    let plan = |(offset, metadata): &(i64, CommitMetadata)| match metadata {
        CommitMetadata::Plan(plan) => Some((*offset, plan.last)),
        CommitMetadata::Idle(_) => None,
    };
    committed_metadata.iter().filter_map(plan).collect()
}

async fn mapped_and_quiet(consumer: &TestConsumer, records: u64) {
    consumer.until_true("mapped", || consumer.counters.snapshot(0).records == records).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_block_is_delivered_when_its_plan_is_in_force_and_not_before() {
    let sink = sink();
    let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.broker(Broker::FailsRetryably);
    consumer.fetch(0, 3..8);
    mapped_and_quiet(&consumer, 5).await;
    assert!(sink.rows().is_empty(), "the plan is not in force");
    consumer.broker(Broker::Accepts);
    consumer.until_committed(0, 8).await;
    let committed_metadata = consumer.committed_metadata(0);
    let (CommitMetadata::Plan(plan), CommitMetadata::Idle(idle)) =
        (&committed_metadata[0].1, &committed_metadata[1].1)
    else {
        panic!("{committed_metadata:?}")
    };
    assert_eq!((committed_metadata[0].0, plan.first, plan.last, plan.rows.rows), (3, 3, 7, 5));
    assert_eq!((committed_metadata[1].0, idle.offset, idle.epoch), (8, 8, plan.epoch));
    let blocks = sink.blocks();
    assert_eq!((blocks.len(), &blocks[0].token, blocks[0].is_replay), (1, &plan.token, false));
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_commit_moves_the_offset_and_carries_the_next_plan() {
    let sink = sink().with_options(|o| o.with_max_bytes(4 * ROW));
    let slow = GraphOptions { commit_interval: Duration::from_secs(3600), exactly_once: true, ..options() };
    let strategy = Strategy::new().map(place).reduce(sink.clone());
    let mut consumer = start_with(strategy, 1 << 20, slow).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..12);
    consumer.until_true("delivered", || sink.rows().len() == 12).await;
    assert_eq!(plans(&consumer.committed_metadata(0)), [(0, 3), (4, 7), (8, 11)], "no commit in between");
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_block_grows_while_rows_wait_and_the_next_ones_follow_at_once() {
    let sink = sink().with_options(|o| o.with_max_rows(2));
    sink.behave(Behaviour::Stall);
    let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..2);
    consumer.until_true("planned", || plans(&consumer.committed_metadata(0)) == [(0, 1)]).await;
    consumer.fetch(0, 2..102);
    mapped_and_quiet(&consumer, 102).await;
    sink.behave(Behaviour::Deliver);
    consumer.until_committed(0, 102).await;
    let sizes: Vec<usize> = sink.batches().iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 32, 32, 32, 4], "up to 16 times max_rows");
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_block_with_rejected_rows_does_not_wait_for_the_age_of_a_batch_of_dead_letters() {
    let sink = rejecting_odd().with_options(|o| o.with_max_bytes(10 * ROW));
    let aged = Collect::default().with_options(|o| o.with_max_age(Duration::from_secs(3600)));
    let dead_letters = DeadLetters::with_sink(aged);
    let strategy = Strategy::new().map(place).reduce(sink.clone()).reduce_err(dead_letters.clone());
    let mut consumer = start_exactly_once(strategy).await;
    consumer.assign(&[0]).await;
    let started = tokio::time::Instant::now();
    consumer.fetch(0, 0..40);
    consumer.until_committed(0, 40).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!((sink.rows().len(), dead_letters.texts().len()), (20, 20));
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_acknowledged_before_the_block_is_planned() {
    let dead_letters = DeadLetters::default();
    dead_letters.sink.behave(Behaviour::Stall);
    let odd_fails = |record: &Record<'_>| -> Result<Place, BoxError> {
        if record.offset() == 3 { Err("odd".into()) } else { Ok((0, record.offset())) }
    };
    let sink = sink();
    let strategy = Strategy::new().map(odd_fails).reduce(sink.clone()).reduce_err(dead_letters.clone());
    let mut consumer = start_exactly_once(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..6);
    mapped_and_quiet(&consumer, 6).await;
    assert!(consumer.committed_metadata(0).is_empty() && sink.rows().is_empty());
    dead_letters.sink.behave(Behaviour::Deliver);
    consumer.until_committed(0, 6).await;
    assert_eq!(plans(&consumer.committed_metadata(0)), [(0, 5)]);
    assert_eq!(sink.batches(), [places([0, 1, 2, 4, 5])]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_planned_block_is_rebuilt_exactly_and_delivered_first() {
    let sink = sink().with_options(|o| o.with_max_bytes(3 * ROW));
    let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink.clone())).await;
    let plan = plan(5..=11, 700);
    consumer.start_with_metadata(0, 5, Some(plan.text()));
    consumer.assign(&[0]).await;
    consumer.fetch(0, 5..9);
    mapped_and_quiet(&consumer, 4).await;
    assert!(sink.rows().is_empty(), "the rebuilt block is not complete");
    consumer.fetch(0, 9..14);
    consumer.until_committed(0, 14).await;
    assert_eq!(sink.batches(), [places(5..=11), places(12..=13)]);
    let blocks = sink.blocks();
    assert_eq!((&blocks[0].token, blocks[0].is_replay), (&plan.token, true));
    assert_eq!(blocks[0].planned_at, std::time::UNIX_EPOCH + Duration::from_millis(5_000));
    assert!(blocks[1].token.contains("-3-12-13-") && !blocks[1].is_replay, "{:?}", blocks[1].token);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rebuilt_block_with_another_mapping_result_stops_the_consumer() {
    let sink = sink();
    let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink.clone())).await;
    // At first, record 7 became a dead letter, and the plan was made without it.
    consumer.start_with_metadata(0, 5, Some(plan([5, 6, 8, 9], 400).text()));
    consumer.assign(&[0]).await;
    consumer.fetch(0, 5..12);
    consumer.until_ended().await;
    assert!(sink.rows().is_empty() && consumer.committed_metadata(0).is_empty(), "the plan stays in force");
    let error = consumer.ended().await.unwrap_err();
    assert!(matches!(error, Error::BlockChanged { first: 5, last: 9, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("4 rows") && text.contains("5 rows") && text.contains("deterministic"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_planned_block_without_any_row_left_is_not_skipped() {
    let skips = |record: &Record<'_>| Ok::<_, BoxError>((record.offset() > 20).then(|| (0, record.offset())));
    let sink = sink();
    let mut consumer = start_exactly_once(Strategy::new().filter_map(skips).reduce(sink.clone())).await;
    consumer.start_with_metadata(0, 5, Some(plan(5..=9, 400).text()));
    consumer.assign(&[0]).await;
    consumer.fetch(0, 5..15);
    consumer.until_ended().await;
    assert!(consumer.committed_metadata(0).is_empty());
    let error = consumer.ended().await.unwrap_err();
    assert!(matches!(error, Error::BlockChanged { first: 5, last: 9, .. }), "{error}");
}

fn end(offset: i64) -> Fetched {
    Fetched::End { topic: "t".into(), partition: 0, offset }
}

#[tokio::test(start_paused = true)]
async fn a_planned_block_whose_last_records_are_gone_ends_with_the_log() {
    // Records after 8 had no rows. In the first case, 7 and 8 had some.
    for (planned, found, expected) in [(5..=8, 5..7, "2 rows"), (5..=8, 5..5, "no row")] {
        let sink = sink();
        let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink.clone())).await;
        consumer.start_with_metadata(0, 5, Some(plan(planned, 400).text()));
        consumer.assign(&[0]).await;
        consumer.fetch(0, found);
        consumer.fetch_event(end(8));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!consumer.has_ended(), "record 8 may still arrive");
        consumer.fetch_event(end(11));
        consumer.until_ended().await;
        assert!(
            sink.rows().is_empty() && consumer.committed_metadata(0).is_empty(),
            "the plan stays in force"
        );
        let error = consumer.ended().await.unwrap_err();
        assert!(matches!(error, Error::BlockChanged { first: 5, last: 8, .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_log_counts_after_the_records_that_are_still_mapped() {
    let slow = |record: OwnedRecord| async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        Ok::<_, BoxError>((record.partition(), record.offset()))
    };
    let sink = sink();
    let strategy = Strategy::new().map_concurrency(Concurrency::in_order(2)).map(slow).reduce(sink.clone());
    let mut consumer = start_exactly_once(strategy).await;
    let plan = plan(5..=8, 400);
    consumer.start_with_metadata(0, 5, Some(plan.text()));
    consumer.assign(&[0]).await;
    consumer.fetch(0, 5..7);
    consumer.fetch(0, 7..9);
    consumer.fetch_event(end(20));
    consumer.until_committed(0, 9).await;
    assert_eq!(sink.batches(), [places(5..=8)]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_revoke_plans_no_block_and_a_shutdown_plans_all() {
    for (change, delivered) in [(Some(Change::Revoke), 0), (None, 5)] {
        let sink = sink().with_options(|o| o.with_max_age(Duration::from_secs(3600)));
        let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink.clone())).await;
        consumer.assign(&[0]).await;
        consumer.fetch(0, 0..5);
        mapped_and_quiet(&consumer, 5).await;
        if let Some(change) = change {
            let id = consumer.rebalance(change, &[0]);
            consumer.until_released(id).await;
        }
        let before = sink.rows().len();
        assert_eq!(before, 0);
        consumer.request_stop();
        consumer.until_ended().await;
        assert_eq!(sink.rows().len(), delivered, "{change:?}");
        assert_eq!(consumer.committed(0), (delivered > 0).then_some(5));
        assert_eq!(consumer.budget.held(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rebalance_during_a_shutdown_drops_unfinished_blocks_without_a_commit() {
    let sink = sink().with_options(|o| o.with_max_bytes(2 * ROW));
    let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    sink.behave(Behaviour::Stall);
    consumer.fetch(0, 0..6);
    consumer.until_true("planned", || plans(&consumer.committed_metadata(0)) == [(0, 1)]).await;
    consumer.request_stop();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!consumer.has_ended(), "the shutdown still drains");
    consumer.rebalance(Change::Revoke, &[0]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    sink.behave(Behaviour::Deliver);
    consumer.until_ended().await;
    assert_eq!(
        plans(&consumer.committed_metadata(0)),
        [(0, 1)],
        "the plan stays in force, and there is no other one"
    );
    assert_eq!((consumer.committed(0), consumer.budget.held()), (Some(0), 0));
    consumer.ended().await.unwrap();
}

/// E11: a late copy of this commit could replace newer ones. A new member continues.
#[tokio::test(start_paused = true)]
async fn a_member_commits_nothing_after_a_commit_that_may_come_late() {
    let sink = sink();
    let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.until_true("planned", || plans(&consumer.committed_metadata(0)) == [(0, 4)]).await;
    consumer.broker(Broker::AcceptsACopy);
    consumer.until(|calls| calls.iter().filter(|call| **call == Call::Connected).count() == 2).await;
    let calls = consumer.calls();
    let lost = calls.iter().position(|call| *call == Call::Committed(0, 5)).unwrap();
    assert_eq!(calls[lost + 1..], [Call::Closed, Call::Connected], "the old member leaves: {calls:?}");
    consumer.broker(Broker::Accepts);
    let metadata = consumer.committed_metadata(0).last().cloned().unwrap().1;
    let CommitMetadata::Idle(idle) = metadata else { panic!("{metadata:?}") };
    consumer.start_with_metadata(0, 5, Some(idle.text()));
    consumer.assign(&[0]).await;
    consumer.fetch(0, 5..9);
    consumer.until_committed(0, 9).await;
    assert_eq!(sink.rows(), places(0..9));
    consumer.stop().await.unwrap();
}

/// Without later commits, a late copy of the last one changes nothing.
#[tokio::test(start_paused = true)]
async fn a_last_commit_that_may_come_late_is_no_error_of_a_shutdown_that_has_committed_everything() {
    for (max_rows, is_complete) in [(6, true), (2, false)] {
        let sink = sink().with_options(|o| o.with_max_bytes(max_rows * ROW));
        sink.behave(Behaviour::Stall);
        let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink.clone())).await;
        consumer.assign(&[0]).await;
        consumer.fetch(0, 0..6);
        consumer.until_true("planned", || plans(&consumer.committed_metadata(0)).len() == 1).await;
        consumer.request_stop();
        tokio::time::sleep(Duration::from_secs(1)).await;
        consumer.broker(Broker::AcceptsACopy);
        sink.behave(Behaviour::Deliver);
        consumer.until_ended().await;
        let committed = consumer.committed(0);
        match consumer.ended().await {
            Ok(_) => assert_eq!((committed, is_complete), (Some(6), true)),
            Err(error) => assert!(matches!(error, Error::Unfinished { .. }) && !is_complete, "{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoke_lets_a_planned_block_finish() {
    let sink = sink();
    let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    sink.behave(Behaviour::Stall);
    consumer.fetch(0, 0..5);
    consumer.until_true("planned", || plans(&consumer.committed_metadata(0)) == [(0, 4)]).await;
    consumer.fetch(0, 5..9);
    let id = consumer.rebalance(Change::Revoke, &[0]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!consumer.is_released(id));
    sink.behave(Behaviour::Deliver);
    consumer.until_released(id).await;
    assert_eq!((consumer.committed(0), sink.rows()), (Some(5), places(0..5)));
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn blocks_of_different_partitions_are_delivered_concurrently_and_of_one_in_order() {
    let sink = sink().with_options(|o| o.with_max_bytes(2 * ROW).with_max_in_flight(3));
    sink.behave(Behaviour::Stall);
    let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 0..6);
    consumer.fetch(1, 0..6);
    mapped_and_quiet(&consumer, 12).await;
    assert_eq!(
        (plans(&consumer.committed_metadata(0)), plans(&consumer.committed_metadata(1))),
        (vec![(0, 1)], vec![(0, 1)])
    );
    sink.behave(Behaviour::Deliver);
    consumer
        .until(|calls| {
            calls.contains(&Call::Committed(0, 6)) && calls.contains(&Call::Committed(1, 6)) //
        })
        .await;
    assert!(sink.batches().iter().all(|batch| batch.len() == 2 && batch[0].0 == batch[1].0));
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_rows_of_a_record_are_in_one_block() {
    let three = |record: &Record<'_>| Ok::<_, BoxError>(vec![(record.partition(), record.offset()); 3]);
    let sink = sink().with_options(|o| o.with_max_bytes(4 * ROW));
    let mut consumer = start_exactly_once(Strategy::new().flat_map(three).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..4);
    consumer.until_committed(0, 4).await;
    let sizes: Vec<usize> = sink.batches().iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 3, 3, 3]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn foreign_offsets_and_metadata_stop_the_consumer() {
    let other = IdleMarker { log: crate::log_id::LogId::new("cluster", 8).unwrap(), epoch: 1, offset: 5 };
    let elsewhere = IdleMarker { log: log().id, epoch: 1, offset: 6 };
    let cut: Arc<str> = elsewhere.text()[..30].into();
    for (metadata, expected) in [
        (None, "no metadata"),
        (Some("plan of t/0".into()), "not of this version"),
        (Some(cut), "damaged"),
        (Some(other.text()), "topic id"),
        (Some(elsewhere.text()), "offset 6"),
    ] {
        let sink = sink();
        let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink.clone())).await;
        let started = tokio::time::Instant::now();
        consumer.start_with_metadata(0, 5, metadata);
        consumer.assign(&[0]).await;
        consumer.fetch(0, 5..9);
        consumer.until_ended().await;
        assert!(started.elapsed() < super::kit::DRAIN / 2, "{:?}", started.elapsed());
        assert!(sink.rows().is_empty() && consumer.committed_metadata(0).is_empty());
        let error = consumer.ended().await.unwrap_err();
        assert!(
            matches!(error, Error::ForeignOffset { .. }) && error.to_string().contains(expected),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_after_an_idle_marker_continue_its_epoch() {
    let sink = sink();
    let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.start_with_metadata(0, 5, Some(IdleMarker { log: log().id, epoch: 77, offset: 5 }.text()));
    consumer.assign(&[0]).await;
    consumer.fetch(0, 5..9);
    consumer.until_committed(0, 9).await;
    assert!(sink.blocks()[0].token.contains("-77-5-8-"), "{:?}", sink.blocks());
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_open_plan_stops_a_consumer_without_exactly_once_mode() {
    let sink = sink();
    let mut consumer = start_with(Strategy::new().map(place).reduce(sink.clone()), 1 << 20, options()).await;
    consumer.start_with_metadata(0, 5, Some(plan(5..=9, 400).text()));
    consumer.assign(&[0]).await;
    consumer.fetch(0, 5..12);
    consumer.until_ended().await;
    assert_eq!(consumer.committed(0), None, "the plan stays in force");
    let error = consumer.ended().await.unwrap_err();
    assert!(matches!(error, Error::OpenPlan { first: 5, last: 9, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn planned_blocks_take_turns_when_the_budget_cannot_hold_them_all() {
    let sink = sink();
    let strategy = Strategy::new().map(place).reduce(sink.clone());
    let options = GraphOptions { exactly_once: true, ..options() };
    let mut consumer = start_with(strategy, 10_000, options).await;
    let of_one = |offset: i64| (1, offset);
    let mut second = self::sink();
    second.accept(Chunk::new((5..=8).map(of_one).collect(), Vec::new())).unwrap();
    let rows = second.freeze().unwrap().fingerprint().unwrap();
    consumer.start_with_metadata(0, 5, Some(plan(5..=8, 4_000).text()));
    consumer.start_with_metadata(1, 5, Some(Plan { rows, ..plan(5..=8, 4_000) }.text()));
    consumer.assign(&[0, 1]).await;
    consumer.until(|calls| calls.contains(&Call::Paused(1))).await;
    consumer.fetch(0, 5..9);
    consumer.until(|calls| calls.contains(&Call::Resumed(1))).await;
    assert_eq!(consumer.committed(0), Some(9), "the second block is rebuilt after the first");
    consumer.fetch(1, 5..9);
    consumer.until_committed(1, 9).await;
    assert_eq!(sink.rows().len(), 8);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_planned_block_that_is_larger_than_the_budget_is_an_error() {
    let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink())).await;
    consumer.start_with_metadata(0, 5, Some(plan(5..=9, 2 << 20).text()));
    consumer.assign(&[0]).await;
    consumer.until_ended().await;
    let error = consumer.ended().await.unwrap_err();
    assert!(
        matches!(&error, Error::Config(text) if text.contains("memory_budget") && text.contains("5 to 9")),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sink_without_exactly_once_is_an_error_before_any_record_is_read() {
    let consumer = start_exactly_once(Strategy::new().map(place).reduce(Collect::default())).await;
    consumer.until_ended().await;
    assert_eq!(consumer.connections(), 0);
    let text = crate::error::error_chain(&consumer.ended().await.unwrap_err());
    assert!(text.contains("reduce 1") && text.contains("not offered"), "{text}");
}

/// A sink that rejects odd offsets.
fn rejecting_odd() -> Collect<Place> {
    sink().rejecting(|(_, offset)| offset % 2 == 1)
}

#[tokio::test(start_paused = true)]
async fn dead_letters_of_rejected_rows_are_acknowledged_before_the_other_rows_are_inserted() {
    let (sink, dead_letters) = (rejecting_odd(), DeadLetters::with_content());
    dead_letters.sink.behave(Behaviour::Stall);
    let strategy = Strategy::new().map(place).reduce(sink.clone()).reduce_err(dead_letters.clone());
    let mut consumer = start_exactly_once(strategy).await;
    consumer.log(0, 9, 0);
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    mapped_and_quiet(&consumer, 5).await;
    assert!(sink.batches().is_empty(), "no row is stored before the dead letters");
    assert_eq!(plans(&consumer.committed_metadata(0)), [(0, 4)]);
    dead_letters.sink.behave(Behaviour::Deliver);
    consumer.until_committed(0, 5).await;
    assert_eq!(
        dead_letters.texts(),
        ["t/0 offset 1 failed at reduce 1: rejected [1]", "t/0 offset 3 failed at reduce 1: rejected [3]"]
    );
    assert_eq!(sink.batches(), [places([0, 2, 4])]);
    let blocks = sink.blocks();
    let CommitMetadata::Plan(plan) = &consumer.committed_metadata(0)[0].1 else {
        panic!("{:?}", consumer.committed_metadata(0))
    };
    assert_eq!((&blocks[0].token, &blocks[0].excluded_rows[..]), (&plan.token, &[1, 3][..]));
    assert_eq!(consumer.budget.held(), 0);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_block_of_rejected_rows_alone_is_finished_with_their_dead_letters() {
    let (sink, dead_letters) = (rejecting_odd(), DeadLetters::default());
    let strategy = Strategy::new().map(place).reduce(sink.clone()).reduce_err(dead_letters.clone());
    let mut consumer = start_exactly_once(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, [1, 3]);
    consumer.until_committed(0, 4).await;
    assert_eq!((dead_letters.texts().len(), sink.rows().len()), (2, 0));
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_record_is_finished_with_its_dead_letter_and_its_other_rows() {
    let two = |record: &Record<'_>| {
        let offset = record.offset() * 10;
        Ok::<_, BoxError>(vec![(0, offset), (0, offset + 1), (0, offset + 3)])
    };
    let (sink, dead_letters) = (rejecting_odd(), DeadLetters::default());
    let strategy = Strategy::new().flat_map(two).reduce(sink.clone()).reduce_err(dead_letters.clone());
    let mut consumer = start_exactly_once(strategy).await;
    consumer.assign(&[0]).await;
    dead_letters.sink.behave(Behaviour::Stall);
    consumer.fetch(0, 5..7);
    mapped_and_quiet(&consumer, 2).await;
    sink.behave(Behaviour::Stall);
    dead_letters.sink.behave(Behaviour::Deliver);
    consumer.until_true("dead letters delivered", || dead_letters.texts().len() == 2).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(consumer.committed(0), Some(5), "the other row of the record is not stored yet");
    sink.behave(Behaviour::Deliver);
    consumer.until_committed(0, 7).await;
    assert_eq!(sink.batches(), [places([50, 60])]);
    assert_eq!(sink.blocks()[0].excluded_rows[..], [1, 2, 4, 5]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_planned_block_with_rejected_rows_is_rebuilt_completely() {
    let (sink, dead_letters) = (rejecting_odd(), DeadLetters::default());
    let strategy = Strategy::new().map(place).reduce(sink.clone()).reduce_err(dead_letters.clone());
    let mut consumer = start_exactly_once(strategy).await;
    let plan = plan(5..=8, 400);
    consumer.start_with_metadata(0, 5, Some(plan.text()));
    consumer.assign(&[0]).await;
    consumer.fetch(0, 5..9);
    consumer.until_committed(0, 9).await;
    assert_eq!((sink.batches(), dead_letters.texts().len()), (vec![places([6, 8])], 2));
    let block = &sink.blocks()[0];
    assert_eq!((&block.token, &block.excluded_rows[..], block.is_replay), (&plan.token, &[0, 2][..], true));
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_reduce_err_a_rejected_row_stops_the_consumer_and_the_plan_stays() {
    let sink = rejecting_odd();
    let mut consumer = start_exactly_once(Strategy::new().map(place).reduce(sink.clone())).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..5);
    consumer.until_ended().await;
    assert_eq!(
        (sink.rows().len(), consumer.committed(0), consumer.committed_metadata(0).len()),
        (0, Some(0), 1)
    );
    let error = consumer.ended().await.unwrap_err();
    assert!(matches!(error, Error::Record { offset: 1, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_failing_reduce_err_ends_the_consumer_with_its_error() {
    let (sink, dead_letters) = (rejecting_odd(), DeadLetters::default());
    dead_letters.sink.behave(Behaviour::FailPermanently);
    let strategy = Strategy::new().map(place).reduce(sink.clone()).reduce_err(dead_letters.clone());
    let mut consumer = start_exactly_once(strategy).await;
    consumer.assign(&[0]).await;
    let started = tokio::time::Instant::now();
    consumer.fetch(0, 0..5);
    consumer.until_ended().await;
    assert!(started.elapsed() < super::kit::DRAIN / 2, "{:?}", started.elapsed());
    assert_eq!((sink.rows().len(), consumer.committed_metadata(0).len()), (0, 1), "the plan stays in force");
    let text = crate::error::error_chain(&consumer.ended().await.unwrap_err());
    assert!(text.contains("the table is gone"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn rejected_rows_of_blocks_count_for_the_circuit_breaker() {
    let (sink, dead_letters) = (sink().rejecting(|_| true), DeadLetters::default());
    let strategy = Strategy::new().map(place).reduce(sink.clone()).reduce_err(dead_letters.clone());
    let circuit_breaker = Some(crate::CircuitBreaker::default().with_max_consecutive(10));
    let options = GraphOptions { exactly_once: true, circuit_breaker, ..options() };
    let mut consumer = start_with(strategy, 1 << 20, options).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..20);
    consumer.until_ended().await;
    let error = consumer.ended().await.unwrap_err();
    assert!(
        matches!(&error, Error::TooManyFailures { last_errors, .. } if last_errors.len() == 3),
        "{error}"
    );
    assert_eq!(dead_letters.texts().len(), 20);
}

#[tokio::test]
async fn an_attempt_without_a_plan_has_no_block() {
    let mut sink = sink();
    let batch = sink.freeze().unwrap();
    batch.deliver(Attempt::new(1)).await.unwrap();
    assert!(sink.blocks().is_empty());
}
