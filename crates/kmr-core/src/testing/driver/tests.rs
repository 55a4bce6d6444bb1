//! Tests of the test driver.

mod kit;

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;

use self::kit::{Sink, payload, text};
use super::Driver;
use crate::consumer::ConsumerBuilder;
use crate::dead_letter::DeadLetter;
use crate::error::{Error, Retryable, error_chain};
use crate::fold::Fold;
use crate::record::{OwnedRecord, Record, TopicPartition};
use crate::reducer::RetryPolicy;
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};
use crate::testing::NewRecord;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// The default age of a batch of `Collect`.
const MAX_AGE: Duration = Duration::from_millis(100);

#[test]
fn a_batch_is_due_by_the_clock_and_piping_does_not_move_it() {
    let sink = Collect::default();
    let mut driver = Driver::new(Strategy::new().map(text).reduce(sink.clone()));
    for offset in 0..500 {
        assert_eq!(driver.pipe(payload(0, &offset.to_string())), offset);
    }
    driver.advance(MAX_AGE - MILLISECOND);
    assert!(sink.rows().is_empty(), "the batch is not due");
    assert_eq!(driver.committed(0), None);
    driver.advance(MILLISECOND);
    assert_eq!(sink.batches(), [(0..500).map(|offset| offset.to_string()).collect::<Vec<_>>()]);
    assert_eq!(driver.committed(0), Some(500));
}

#[test]
fn a_full_batch_needs_no_clock() {
    let sink = Collect::default().with_options(|o| o.with_max_rows(2));
    let mut driver = Driver::new(Strategy::new().map(text).reduce(sink.clone()));
    driver.pipe(payload(0, "a"));
    assert_eq!((sink.rows().len(), driver.committed(0)), (0, None));
    driver.pipe_all([payload(0, "b"), payload(0, "c")]);
    assert_eq!((sink.rows(), driver.committed(0)), (vec!["a".into(), "b".into()], Some(2)));
}

#[test]
fn nothing_is_committed_before_it_is_delivered() {
    let sink = Collect::default();
    sink.behave(Behaviour::Stall);
    let mut driver = Driver::new(Strategy::new().map(text).reduce(sink.clone()));
    driver.pipe(payload(0, "a"));
    driver.advance(10 * SECOND);
    assert_eq!(driver.committed(0), None);
    sink.behave(Behaviour::Deliver);
    driver.advance(Duration::ZERO);
    assert_eq!((sink.rows().len(), driver.committed(0)), (1, Some(1)));
}

#[test]
fn a_failed_record_is_committed_after_its_dead_letter() {
    let (sink, dead_letters) = (Collect::default(), Sink::<DeadLetter>::new(SECOND));
    let strategy = Strategy::new().map(text).reduce(sink.clone()).reduce_err(dead_letters.clone());
    let mut driver = Driver::with_settings(strategy, |settings| settings.topics(["orders"])).unwrap();
    driver.pipe_all([payload(2, "a"), NewRecord::new(2).with_payload([0xFF]), payload(2, "c")]);
    driver.advance(MAX_AGE);
    assert_eq!(sink.rows(), ["a", "c"]);
    assert_eq!(driver.committed(2), Some(1), "the dead letter is not delivered yet");
    driver.advance(SECOND - MAX_AGE);
    assert_eq!(driver.committed(2), Some(3));
    let [failed] = &dead_letters.take()[..] else { panic!("not one dead letter") };
    assert_eq!((failed.partition.clone(), failed.offset), (TopicPartition::new("orders", 2), 1));
    assert_eq!(failed.stage, "map 1");
    assert!(failed.reason().contains("invalid utf-8"), "{}", failed.reason());
}

#[test]
fn a_rejected_row_becomes_a_dead_letter_with_its_record() {
    let sink = Collect::default().rejecting(|row: &String| row == "b");
    let dead_letters = Sink::<DeadLetter>::new(MAX_AGE);
    let strategy = Strategy::new().map(text).reduce(sink.clone()).reduce_err(dead_letters.clone());
    let mut driver = Driver::new(strategy);
    driver.pipe_all([payload(0, "a").with_timestamp_millis(5), payload(0, "b").with_timestamp_millis(7)]);
    driver.advance(SECOND);
    let [rejected] = &dead_letters.take()[..] else { panic!("not one dead letter") };
    let record = OwnedRecord::new("driver", 0, 1).with_payload("b").with_timestamp_millis(7);
    assert_eq!((rejected.stage.as_str(), rejected.record.as_ref()), ("reduce 1", Some(&record)));
    assert_eq!((sink.rows(), driver.committed(0)), (vec!["a".into()], Some(2)));
}

#[test]
fn a_delivery_is_retried_by_the_clock() {
    let sink = Sink::<String>::new(MAX_AGE);
    sink.fail_next(2);
    let mut driver = Driver::new(Strategy::new().map(text).reduce(sink.clone()));
    driver.pipe(payload(0, "a"));
    driver.advance(MAX_AGE);
    driver.advance(Duration::ZERO);
    assert_eq!((sink.attempts(), driver.committed(0)), (1, None), "a backoff needs the clock");
    driver.advance(SECOND);
    assert_eq!((sink.attempts(), sink.take(), driver.committed(0)), (3, vec!["a".into()], Some(1)));
}

#[test]
fn a_map_stage_is_retried_by_the_clock() {
    let (sink, dead_letters) = (Collect::default(), Sink::<DeadLetter>::new(MAX_AGE));
    let unavailable = |_: &Record<'_>| Err::<String, _>(Retryable::new("unavailable"));
    let strategy = Strategy::new().map(unavailable).map_retry(RetryPolicy::default()).reduce(sink);
    let mut driver = Driver::new(strategy.reduce_err(dead_letters.clone()));
    driver.pipe(payload(0, "a"));
    driver.advance(60 * SECOND);
    assert_eq!((dead_letters.attempts(), driver.committed(0)), (0, None));
    driver.advance(300 * SECOND);
    assert_eq!((dead_letters.take().len(), driver.committed(0)), (1, Some(1)));
}

#[test]
fn a_permanent_error_ends_the_consumer() {
    let sink = Collect::default();
    sink.behave(Behaviour::FailPermanently);
    let mut driver = Driver::new(Strategy::new().map(text).reduce(sink));
    driver.pipe(payload(0, "a"));
    assert!(!driver.has_ended());
    driver.advance(MAX_AGE);
    assert!(driver.has_ended());
    driver.pipe(payload(0, "b"));
    driver.advance(SECOND);
    let error = driver.finish().unwrap_err();
    assert!(matches!(&error, Error::Stage { stage, .. } if stage == "reduce 1"), "{error}");
    assert_eq!(driver.committed(0), None);
}

#[test]
fn a_stage_that_does_not_start_is_the_result() {
    let sink = Sink::<String>::new(MAX_AGE).that_does_not_start();
    let mut driver = Driver::new(Strategy::new().map(text).reduce(sink));
    assert!(driver.has_ended());
    assert!(matches!(driver.finish(), Err(Error::Stage { .. })));
}

fn panics_on_b(record: &Record<'_>) -> Result<String, Infallible> {
    match record.payload() {
        Some(b"b") => panic!("b is not expected"),
        payload => Ok(String::from_utf8_lossy(payload.unwrap_or_default()).into_owned()),
    }
}

#[test]
fn a_panic_of_a_map_stage_is_a_dead_letter() {
    let (sink, dead_letters) = (Collect::default(), Sink::<DeadLetter>::new(MAX_AGE));
    let strategy = Strategy::new().map(panics_on_b).reduce(sink.clone()).reduce_err(dead_letters.clone());
    let mut driver = Driver::new(strategy);
    driver.pipe_all(["a", "b", "c"].map(|text| payload(0, text)));
    driver.advance(MAX_AGE);
    assert_eq!((sink.rows(), driver.committed(0)), (vec!["a".into(), "c".into()], Some(3)));
    let [panicked] = &dead_letters.take()[..] else { panic!("not one dead letter") };
    assert!(panicked.reason().contains("b is not expected"), "{}", panicked.reason());
}

#[test]
fn without_reduce_err_a_panic_ends_the_consumer() {
    let sink = Collect::default();
    let mut driver = Driver::new(Strategy::new().map(panics_on_b).reduce(sink));
    driver.pipe(payload(0, "a"));
    driver.advance(MAX_AGE);
    assert!(!driver.has_ended());
    driver.pipe(payload(0, "b"));
    assert!(driver.has_ended());
    assert!(error_chain(&driver.finish().unwrap_err()).contains("b is not expected"));
    assert_eq!(driver.committed(0), Some(1));
}

#[test]
fn a_fold_makes_one_row_of_many_records() {
    let sink = Collect::<(String, usize)>::default();
    let count = Fold::by_key(String::clone, |key| (key, 1), |row, later: (String, usize)| row.1 += later.1);
    let mut driver = Driver::new(Strategy::new().map(text).reduce(count.into(sink.clone())));
    driver.pipe_all(["a", "b", "a", "a"].map(|text| payload(0, text)));
    driver.advance(MAX_AGE);
    assert_eq!(sink.batches(), [[("a".to_owned(), 3), ("b".to_owned(), 1)]]);
    assert_eq!(driver.committed(0), Some(4));
}

#[test]
fn partitions_have_offsets_and_commits_of_their_own() {
    let sink = Collect::default().with_options(|o| o.with_max_rows(3));
    let mut driver = Driver::new(Strategy::new().map(text).reduce(sink.clone()));
    assert_eq!([0, 7, 7].map(|partition| driver.pipe(payload(partition, &partition.to_string()))), [0, 0, 1]);
    assert_eq!(sink.rows(), ["0", "7", "7"]);
    assert_eq!([0, 1, 7].map(|partition| driver.committed(partition)), [Some(1), None, Some(2)]);
}

#[test]
fn an_async_stage_waits_by_the_clock_and_keeps_the_order() {
    let slow = async |record: OwnedRecord| {
        let text = String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned();
        sleep(if text == "slow" { 10 * SECOND } else { SECOND }).await;
        Ok::<_, Infallible>(text)
    };
    let sink = Collect::default();
    let mut driver = Driver::new(Strategy::new().map(slow).map_concurrency(2).reduce(sink.clone()));
    driver.pipe_all([payload(0, "slow"), payload(0, "fast")]);
    driver.advance(9 * SECOND);
    assert!(sink.rows().is_empty());
    driver.advance(SECOND + MAX_AGE);
    assert_eq!((sink.rows(), driver.committed(0)), (vec!["slow".into(), "fast".into()], Some(2)));
}

#[test]
fn advance_waits_for_spawn_blocking() {
    let blocking = async |record: OwnedRecord| {
        let pause = || std::thread::sleep(Duration::from_millis(50));
        tokio::task::spawn_blocking(pause).await.map(|()| record.offset())
    };
    let sink = Collect::default().with_options(|o| o.with_max_rows(1));
    let mut driver = Driver::new(Strategy::new().map(blocking).reduce(sink.clone()));
    driver.pipe(payload(0, "a"));
    driver.advance(MILLISECOND);
    assert_eq!((sink.rows(), driver.committed(0)), (vec![0], Some(1)));
}

#[test]
fn exactly_once_mode_delivers_planned_blocks() {
    let sink = Collect::default().exactly_once(|row: &String| row.clone());
    let strategy = Strategy::new().map(text).reduce(sink.clone());
    let mut driver = Driver::with_settings(strategy, ConsumerBuilder::exactly_once).unwrap();
    driver.pipe_all([payload(0, "a"), payload(0, "b")]);
    assert!(sink.rows().is_empty());
    driver.advance(MAX_AGE);
    assert_eq!((sink.rows(), sink.blocks().len()), (vec!["a".into(), "b".into()], 1));
    assert_eq!(driver.committed(0), Some(2));
}

#[test]
fn a_paused_partition_is_read_after_the_pause() {
    let sink = Collect::default().with_options(|o| o.with_max_rows(1));
    let mut driver = Driver::new(Strategy::new().map(text).reduce(sink.clone()));
    driver.handle().pause([TopicPartition::new("driver", 0)]);
    driver.pipe(payload(0, "a"));
    driver.pipe(payload(0, "b"));
    driver.handle().resume_all();
    let read_while_paused = sink.rows().len();
    driver.advance(SECOND);
    assert_eq!((read_while_paused, sink.rows().len(), driver.committed(0)), (0, 2, Some(2)));
}

#[test]
fn finish_delivers_and_commits_the_open_batch() {
    let sink = Collect::default();
    let mut driver = Driver::new(Strategy::new().map(text).reduce(sink.clone()));
    driver.pipe(payload(0, "a"));
    let report = driver.finish().unwrap();
    assert_eq!((report.stats.records, sink.rows().len(), driver.committed(0)), (1, 1, Some(1)));
    assert!(driver.has_ended());
}

#[test]
fn finish_and_drop_end_with_a_delivery_that_does_not() {
    let stalled = || {
        let sink = Collect::default();
        sink.behave(Behaviour::Stall);
        let mut driver = Driver::new(Strategy::new().map(text).reduce(sink));
        driver.pipe(payload(0, "a"));
        driver.advance(SECOND);
        driver
    };
    drop(stalled());
    assert!(matches!(stalled().finish(), Err(Error::Unfinished { .. })));
}

#[test]
#[should_panic(expected = "was finished")]
fn a_finished_driver_takes_no_record() {
    let mut driver = Driver::new(Strategy::new().map(text).reduce(Collect::default()));
    driver.finish().unwrap();
    driver.pipe(payload(0, "a"));
}

#[tokio::test]
#[should_panic(expected = "a Driver is synchronous")]
async fn a_driver_in_async_code_names_the_remedy() {
    Driver::new(Strategy::new().map(text).reduce(Collect::default()));
}

#[test]
fn settings_that_do_not_fit_are_named() {
    let of_topics = |topics: &'static [&'static str]| {
        let strategy = Strategy::new().map(text).reduce(Collect::default());
        Driver::with_settings(strategy, |settings| settings.topics(topics.iter().copied())).err()
    };
    for topics in [&["a", "b"][..], &["^a"]] {
        assert!(of_topics(topics).is_some_and(|error| error.to_string().contains("one topic")));
    }
}
