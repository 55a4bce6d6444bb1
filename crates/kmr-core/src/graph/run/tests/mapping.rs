//! Tests of the map phase: retries, concurrency in one partition, slow mappers beside fast ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::{ProptestConfig, Strategy as Generator, any, prop, proptest};
use tokio::time::{Instant, sleep};

use super::kit::{Call, DeadLetters, TestConsumer, start};
use crate::error::{BoxError, Retryable};
use crate::member::Change;
use crate::record::{OwnedRecord, Record};
use crate::reducer::RetryPolicy;
use crate::stage::{Concurrency, Mapped};
use crate::strategy::Strategy;
use crate::test_reducer::Collect;
use crate::util::future::BoxFuture;

/// The calls of a mapper: all in order, and those in progress.
#[derive(Default)]
struct Log {
    started: Mutex<Vec<i64>>,
    running: Mutex<Vec<(i64, Option<Vec<u8>>)>>,
    most: AtomicUsize,
}

/// A call in progress. It ends when the entry is dropped.
struct Entry<'a>(&'a Log, i64);

impl Log {
    fn enter(&self, record: &OwnedRecord) -> Entry<'_> {
        self.started.lock().unwrap().push(record.offset());
        let mut running = self.running.lock().unwrap();
        running.push((record.offset(), record.key().map(<[u8]>::to_vec)));
        self.most.fetch_max(running.len(), Ordering::SeqCst);
        Entry(self, record.offset())
    }

    /// Whether two records with the same key are in progress.
    fn overlaps(&self) -> bool {
        let running = self.running.lock().unwrap();
        let mut keys: Vec<_> = running.iter().filter_map(|(_, key)| key.as_ref()).collect();
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        keys.len() < all
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    fn calls(&self, offset: i64) -> usize {
        self.started.lock().unwrap().iter().filter(|started| **started == offset).count()
    }

    fn running(&self) -> usize {
        self.running.lock().unwrap().len()
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.0.running.lock().unwrap().retain(|(offset, _)| *offset != self.1);
    }
}

fn keyed(offset: i64, key: Option<&str>) -> OwnedRecord {
    let record = OwnedRecord::new("t", 0, offset);
    match key {
        Some(key) => record.with_key(key),
        None => record,
    }
}

fn unavailable() -> BoxError {
    Retryable::new("status 503").into()
}

async fn committed(consumer: &TestConsumer, offset: i64) {
    consumer.until_committed(0, offset).await;
}

#[tokio::test(start_paused = true)]
async fn a_retryable_error_is_retried_in_order_and_earlier_records_are_committed_meanwhile() {
    for asynchronous in [false, true] {
        let (sink, dead_letters, tries) =
            (Collect::default(), DeadLetters::default(), Arc::new(AtomicUsize::new(0)));
        let attempt = {
            let tries = tries.clone();
            move |offset: i64| match offset {
                2 if tries.fetch_add(1, Ordering::SeqCst) < 6 => Err(unavailable()),
                3 => Err("bad".into()),
                offset => Ok::<i64, BoxError>(offset),
            }
        };
        let strategy = Strategy::new().map(|record: &Record<'_>| Ok::<_, BoxError>(record.offset()));
        let pipeline = if asynchronous {
            let attempt = Arc::new(attempt);
            let strategy = strategy.map(move |offset| {
                let attempt = attempt.clone();
                async move {
                    sleep(Duration::from_millis(5)).await;
                    attempt(offset)
                }
            });
            strategy.reduce(sink.clone()).reduce_err(dead_letters.clone())
        } else {
            strategy.map(attempt).reduce(sink.clone()).reduce_err(dead_letters.clone())
        };
        let mut consumer = start(pipeline).await;
        consumer.assign(&[0]).await;
        consumer.fetch(0, 0..6);
        committed(&consumer, 2).await;
        assert!(tries.load(Ordering::SeqCst) < 6, "earlier records are committed while it waits");
        assert_eq!(sink.rows(), [0, 1]);
        committed(&consumer, 6).await;
        assert_eq!((tries.load(Ordering::SeqCst), sink.rows()), (7, vec![0, 1, 2, 4, 5]));
        assert_eq!(dead_letters.texts(), ["t/0 offset 3 failed at map 2: bad"]);
        assert_eq!(consumer.budget.held(), 0);
        consumer.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_becomes_a_dead_letter_with_its_last_error_when_the_retry_policy_gives_up() {
    let (sink, dead_letters, tries) =
        (Collect::default(), DeadLetters::default(), Arc::new(AtomicUsize::new(0)));
    let counted = tries.clone();
    let strategy = Strategy::new()
        .map(move |record: &Record<'_>| match record.offset() {
            1 => Err(Retryable::new(format!("try {}", counted.fetch_add(1, Ordering::SeqCst) + 1))),
            offset => Ok(offset),
        })
        .map_retry(RetryPolicy::default().with_give_up_after(Some(Duration::from_secs(60))))
        .reduce(sink.clone())
        .reduce_err(dead_letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    let start = Instant::now();
    consumer.fetch(0, 0..3);
    committed(&consumer, 3).await;
    let (took, tries) = (start.elapsed(), tries.load(Ordering::SeqCst));
    assert!((60..75).contains(&took.as_secs()) && tries > 8, "{tries} attempts in {took:?}");
    assert_eq!(dead_letters.texts(), [format!("t/0 offset 1 failed at map 1: try {tries}")]);
    assert_eq!(sink.rows(), [0, 2]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_waits_for_a_few_records_keeps_their_order_and_is_retried() {
    let (sink, dead_letters, tries) =
        (Collect::default(), DeadLetters::default(), Arc::new(AtomicUsize::new(0)));
    let counted = tries.clone();
    let strategy = Strategy::new()
        .map(move |record: &Record<'_>| match record.offset() {
            2 => {
                let counted = counted.clone();
                Mapped::Pending(Box::pin(async move {
                    sleep(Duration::from_secs(1)).await;
                    if counted.fetch_add(1, Ordering::SeqCst) < 3 { Err(unavailable()) } else { Ok(2) }
                }))
            }
            4 => Mapped::Ready(Err("it is bad".into())),
            6 => Mapped::Pending(Box::pin(async { Err("it is also bad".into()) })),
            offset => Mapped::Ready(Ok(offset)),
        })
        .map(|offset| Mapped::Ready(Ok(offset)))
        .reduce(sink.clone())
        .reduce_err(dead_letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..8);
    committed(&consumer, 8).await;
    assert_eq!(sink.rows(), [0, 1, 2, 3, 5, 7]);
    assert_eq!(tries.load(Ordering::SeqCst), 4);
    let expected =
        ["t/0 offset 4 failed at map 1: it is bad", "t/0 offset 6 failed at map 1: it is also bad"];
    assert_eq!(dead_letters.texts(), expected);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_retry_without_a_limit_lasts_until_a_revoke_and_ends_at_once() {
    let (sink, tries) = (Collect::default(), Arc::new(AtomicUsize::new(0)));
    let counted = tries.clone();
    let strategy = Strategy::new()
        .map_retry(RetryPolicy::default().with_give_up_after(None))
        .map(move |record: &Record<'_>| match record.offset() {
            4 => {
                counted.fetch_add(1, Ordering::SeqCst);
                Err(unavailable())
            }
            offset => Ok(offset),
        })
        .reduce(sink.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 0..8);
    sleep(Duration::from_secs(3600)).await;
    let tried = tries.load(Ordering::SeqCst);
    assert!((360..1500).contains(&tried), "{tried} attempts an hour");
    assert_eq!(consumer.committed(0), Some(4));
    consumer.fetch(1, [1, 2, 3]);
    consumer.until_true("another partition continues", || consumer.committed(1) == Some(4)).await;
    let start = Instant::now();
    let id = consumer.rebalance(Change::Revoke, &[0]);
    consumer.until_released(id).await;
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    sleep(Duration::from_secs(60)).await;
    assert!(tries.load(Ordering::SeqCst) <= tried + 1);
    assert_eq!((consumer.committed(0), consumer.budget.held()), (Some(4), 0));
    consumer.stop().await.unwrap();
}

/// A mapper that needs `millis` milliseconds for the record at an offset.
fn slow(
    log: &Arc<Log>,
    millis: fn(i64) -> u64,
) -> impl Fn(OwnedRecord) -> BoxFuture<'static, Result<i64, BoxError>> + Send + Sync + 'static {
    let log = log.clone();
    move |record| {
        let log = log.clone();
        Box::pin(async move {
            let _entry = log.enter(&record);
            sleep(Duration::from_millis(millis(record.offset()))).await;
            Ok(record.offset())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn several_records_of_a_partition_are_in_progress_at_once_even_across_batches() {
    for single in [false, true] {
        let (sink, log) = (Collect::default(), Arc::<Log>::default());
        let strategy = Strategy::new().map_concurrency(8).map(slow(&log, |_| 100)).reduce(sink.clone());
        let mut consumer = start(strategy).await;
        consumer.assign(&[0]).await;
        let started = Instant::now();
        match single {
            true => (0..80).for_each(|offset| consumer.fetch(0, [offset])),
            false => consumer.fetch(0, 0..80),
        }
        committed(&consumer, 80).await;
        assert!(started.elapsed() < Duration::from_millis(1400), "{:?}", started.elapsed());
        assert_eq!((log.most(), sink.rows()), (8, (0..80).collect::<Vec<_>>()));
        consumer.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_record_delays_later_rows_and_commits_but_not_the_start_of_later_records() {
    let (sink, log) = (Collect::default(), Arc::<Log>::default());
    let millis = |offset| match offset {
        1 => 1_000,
        2 => 10_000,
        _ => 1,
    };
    let strategy = Strategy::new().map(slow(&log, millis)).map_concurrency(4).reduce(sink.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..2);
    consumer.fetch(0, 2..100);
    sleep(Duration::from_secs(5)).await;
    assert_eq!((consumer.committed(0), sink.rows()), (Some(2), vec![0, 1]));
    let started = log.started.lock().unwrap().len();
    assert_eq!(started, 2 + 4 * 16, "a bounded number of records starts after it");
    assert!(consumer.budget.held() > 90 * 340, "unmapped records stay charged: {}", consumer.budget.held());
    committed(&consumer, 100).await;
    assert_eq!((sink.rows(), consumer.budget.held()), ((0..100).collect::<Vec<_>>(), 0));
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_stays_charged_until_its_last_record_is_mapped() {
    let (sink, log) = (Collect::default(), Arc::<Log>::default());
    let millis = |offset| if offset == 90 { 10_000 } else { 1 };
    let strategy = Strategy::new().map(slow(&log, millis)).map_concurrency(4).reduce(sink.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..100);
    sleep(Duration::from_secs(5)).await;
    assert_eq!((consumer.committed(0), sink.rows().len()), (Some(90), 90));
    // The client frees the messages of a batch together.
    assert!(consumer.budget.held() >= 100 * 340, "{}", consumer.budget.held());
    committed(&consumer, 100).await;
    assert_eq!(consumer.budget.held(), 0);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn by_key_records_of_one_key_are_mapped_in_order_and_others_do_not_wait() {
    let (sink, log) = (Collect::default(), Arc::<Log>::default());
    let overlap = Arc::new(AtomicUsize::new(0));
    let (seen, overlapped) = (log.clone(), overlap.clone());
    let mapper = slow(&log, |_| 100);
    let strategy = Strategy::new()
        .map_concurrency(Concurrency::by_key(8))
        .map(move |record: OwnedRecord| {
            let call = mapper(record);
            let (seen, overlapped) = (seen.clone(), overlapped.clone());
            async move {
                let mapped = tokio::join!(call, async {
                    overlapped.fetch_add(usize::from(seen.overlaps()), Ordering::SeqCst);
                });
                mapped.0
            }
        })
        .reduce(sink.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    let started = Instant::now();
    let keys = [Some("a"), Some("a"), None, Some("b"), Some("a"), None, None, Some("b")];
    consumer.fetch_records(0, (0..).zip(keys).map(|(offset, key)| keyed(offset, key)).collect());
    committed(&consumer, 8).await;
    assert!(
        (300..500).contains(&started.elapsed().as_millis()),
        "three records of key a: {:?}",
        started.elapsed()
    );
    assert_eq!((overlap.load(Ordering::SeqCst), log.most()), (0, 5), "a, b and three records without a key");
    assert_eq!(*log.started.lock().unwrap(), [0, 2, 3, 5, 6, 1, 7, 4]);
    assert_eq!(sink.rows(), (0..8).collect::<Vec<_>>());
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn records_that_fail_panic_or_are_retried_keep_the_others_in_order() {
    let (sink, dead_letters, log) = (Collect::default(), DeadLetters::default(), Arc::<Log>::default());
    let calls = log.clone();
    let mapper = slow(&log, |offset| u64::try_from(20 - offset).unwrap_or(1));
    let strategy = Strategy::new()
        .map(mapper)
        .map(move |offset: i64| match offset {
            3 => Err("bad".into()),
            5 => panic!("boom"),
            7 if calls.calls(7) < 4 => Err(unavailable()),
            offset => Ok::<_, BoxError>(offset),
        })
        .map_concurrency(4)
        .reduce(sink.clone())
        .reduce_err(dead_letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..20);
    committed(&consumer, 20).await;
    let expected: Vec<i64> = (0..20).filter(|offset| ![3, 5].contains(offset)).collect();
    assert_eq!((sink.rows(), log.calls(7), log.calls(8)), (expected, 4, 1));
    let mut texts = dead_letters.texts();
    texts.sort();
    assert_eq!(texts, ["t/0 offset 3 failed at map 2: bad", "t/0 offset 5 failed at map 2: panicked: boom"]);
    consumer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn records_in_progress_at_a_revoke_are_dropped_and_read_again() {
    let (sink, log) = (Collect::default(), Arc::<Log>::default());
    let millis = |offset| if offset == 3 { 3_600_000 } else { 1 };
    let strategy = Strategy::new().map(slow(&log, millis)).map_concurrency(4).reduce(sink.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..10);
    sleep(Duration::from_secs(5)).await;
    assert_eq!((log.started.lock().unwrap().len(), log.running()), (10, 1));
    let started = Instant::now();
    let id = consumer.rebalance(Change::Revoke, &[0]);
    consumer.until_released(id).await;
    assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
    assert_eq!((consumer.committed(0), sink.rows(), log.running()), (Some(3), vec![0, 1, 2], 0));
    consumer.assign(&[0]).await;
    consumer.fetch(0, 4..10);
    committed(&consumer, 10).await;
    assert_eq!(consumer.budget.held(), 0);
    consumer.stop().await.unwrap();
}

/// The behaviour of the mapper for one record.
#[derive(Clone, Debug)]
struct Fate {
    gap: i64,
    key: Option<u8>,
    millis: u64,
    retries: usize,
    fails: bool,
    rows: i64,
}

fn fate() -> impl Generator<Value = Fate> {
    let numbers = (1_i64..4, prop::option::of(0_u8..4), 0_u64..60, 0_usize..3, 0_usize..12, 0_i64..4);
    numbers.prop_map(|(gap, key, millis, retries, kind, rows)| Fate {
        gap,
        key,
        millis,
        retries: if kind < 4 { retries } else { 0 },
        fails: kind == 5,
        rows,
    })
}

/// Checks that each record was mapped as its fate requires, and that rows arrived in order.
fn check_fates(
    by_offset: &BTreeMap<i64, Fate>,
    sink: &Collect<(i64, i64)>,
    dead_letters: &DeadLetters,
    log: &Log,
) {
    let good = by_offset.iter().filter(|(_, fate)| !fate.fails);
    let rows: Vec<(i64, i64)> = good.flat_map(|(at, fate)| (0..fate.rows).map(|row| (*at, row))).collect();
    assert_eq!(sink.rows(), rows);
    assert_eq!(
        dead_letters.texts().len(),
        by_offset.values().filter(|fate| fate.fails).count(),
        "{:?}",
        dead_letters.texts()
    );
    for (at, fate) in by_offset {
        assert_eq!(log.calls(*at), fate.retries + 1, "calls for offset {at}");
    }
}

/// Maps records with these fates. Checks that the rows of each arrive once and in order, and that
/// records of one key are mapped one after the other.
async fn run_fates(fates: Vec<Fate>, concurrency: Concurrency, batch: usize) {
    let (sink, dead_letters, log) = (Collect::default(), DeadLetters::default(), Arc::<Log>::default());
    let mut offset = 0;
    let by_offset: BTreeMap<i64, Fate> = fates
        .into_iter()
        .map(|fate| {
            offset += fate.gap;
            (offset, fate)
        })
        .collect();
    let (shared, calls, by_key) = (Arc::new(by_offset.clone()), log.clone(), concurrency.is_by_key());
    let map = move |record: OwnedRecord| {
        let (fates, log) = (shared.clone(), calls.clone());
        async move {
            let _entry = log.enter(&record);
            assert!(!by_key || !log.overlaps(), "two records of one key are in progress");
            let fate = &fates[&record.offset()];
            if fate.millis > 0 {
                sleep(Duration::from_millis(fate.millis)).await;
            }
            match log.calls(record.offset()) {
                calls if calls <= fate.retries => Err(unavailable()),
                _ if fate.fails => Err("bad".into()),
                _ => Ok::<_, BoxError>((0..fate.rows).map(|row| (record.offset(), row)).collect::<Vec<_>>()),
            }
        }
    };
    let strategy = Strategy::new()
        .map_concurrency(concurrency)
        .flat_map(map)
        .reduce(sink.clone())
        .reduce_err(dead_letters.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    let record =
        |(offset, fate): (&i64, &Fate)| keyed(*offset, fate.key.map(|key| key.to_string()).as_deref());
    let records: Vec<OwnedRecord> = by_offset.iter().map(record).collect();
    for (number, records) in records.chunks(batch).enumerate() {
        consumer.fetch_records(0, records.to_vec());
        if number % 3 == 1 {
            consumer.fetch_records(0, records.to_vec()); // returned twice by the poll
        }
        sleep(Duration::from_millis(7)).await;
    }
    committed(&consumer, offset + 1).await;
    check_fates(&by_offset, &sink, &dead_letters, &log);
    assert!(log.most() <= concurrency.records());
    let commits: Vec<i64> = consumer
        .calls()
        .iter()
        .filter_map(|call| if let Call::Committed(_, at) = call { Some(*at) } else { None })
        .collect();
    assert!(commits.is_sorted(), "{commits:?}");
    assert_eq!(consumer.budget.held(), 0);
    consumer.stop().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn rows_of_every_record_arrive_once_and_in_order(
        fates in prop::collection::vec(fate(), 1..80),
        most in 1_usize..9,
        by_key in any::<bool>(),
        batch in 1_usize..30,
    ) {
        let concurrency = if by_key { Concurrency::by_key(most) } else { Concurrency::in_order(most) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(run_fates(fates, concurrency, batch));
    }
}

/// Blocks the thread for two milliseconds, so that the record counts as slow.
fn block() {
    std::thread::sleep(Duration::from_millis(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_blocking_mapper_leaves_the_only_worker_thread_to_the_other_partitions_and_to_timers() {
    let (sink, done) = (Collect::default(), Arc::new(Mutex::new(false)));
    let (seen, given_up) = (done.clone(), Arc::new(AtomicUsize::new(0)));
    let gave_up = given_up.clone();
    let strategy = Strategy::new()
        .map(move |record: &Record<'_>| {
            match (record.partition(), record.offset()) {
                (0, 0..50) => block(),
                // It does not return before the other partition is done.
                (0, 50) => {
                    let deadline = std::time::Instant::now() + Duration::from_secs(20);
                    while !*seen.lock().unwrap() {
                        if std::time::Instant::now() > deadline {
                            gave_up.fetch_add(1, Ordering::SeqCst);
                            break;
                        }
                        block();
                    }
                }
                _ => {}
            }
            Ok::<_, BoxError>((record.partition(), record.offset()))
        })
        .reduce(sink.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0, 1]).await;
    consumer.fetch(0, 0..60);
    sleep(Duration::from_millis(200)).await;
    for offset in 0..20 {
        consumer.fetch(1, [offset]);
        sleep(Duration::from_millis(1)).await;
    }
    consumer.until_true("the fast partition is done", || consumer.committed(1) == Some(20)).await;
    assert_eq!(given_up.load(Ordering::SeqCst), 0, "the fast partition is done before the slow one");
    assert!(consumer.committed(0).is_none_or(|offset| offset <= 50));
    *done.lock().unwrap() = true;
    committed(&consumer, 60).await;
    consumer.stop().await.unwrap();
}

async fn revoke_between_two_slow_records() {
    let (sink, mapped) = (Collect::default(), Arc::new(AtomicUsize::new(0)));
    let counted = mapped.clone();
    let strategy = Strategy::new()
        .map(move |record: &Record<'_>| {
            counted.fetch_add(1, Ordering::SeqCst);
            block();
            Ok::<_, BoxError>(record.offset())
        })
        .reduce(sink.clone());
    let mut consumer = start(strategy).await;
    consumer.assign(&[0]).await;
    consumer.fetch(0, 0..2500);
    consumer.until_true("rows leave before the batch is mapped", || !sink.rows().is_empty()).await;
    let id = consumer.rebalance(Change::Revoke, &[0]);
    consumer.until_released(id).await;
    let mapped = mapped.load(Ordering::SeqCst);
    assert!(mapped < 2400, "the revoke waited for the batch: {mapped} records were mapped");
    assert_eq!(sink.rows().len(), mapped, "mapped records are delivered");
    assert_eq!(consumer.committed(0), i64::try_from(mapped).ok(), "mapped records are committed");
    consumer.stop().await.unwrap();
}

#[tokio::test]
async fn a_revoke_interrupts_a_slow_batch_in_a_current_thread_runtime() {
    revoke_between_two_slow_records().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_revoke_interrupts_a_slow_batch_in_a_multi_thread_runtime() {
    revoke_between_two_slow_records().await;
}
