//! What a scrape shows of a running consumer, compared with docs/metrics.md.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, CodedError, Consumer, ConsumerHandle, DeadLetter, Delivered,
    Delivery, DeliveryError, MetricsFormat, Record, Reducer, RetryPolicy, Strategy, async_trait,
};
use rdkafka::producer::{BaseRecord, Producer};
use tokio::sync::Semaphore;

use crate::kit::{Cluster, Count, KIP_848, Running, Seen, place};

/// One metric of a scrape.
#[derive(Debug, Default, PartialEq, Eq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
}

/// The series of a scrape: name, labels and value.
type Series = Vec<(String, BTreeMap<String, String>, f64)>;

/// Parses the text format of Prometheus.
fn parse(text: &str) -> (BTreeMap<String, Family>, Series) {
    let (mut families, mut all) = (BTreeMap::<String, Family>::new(), Vec::new());
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("# TYPE ") {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(!families.contains_key(name), "{name} is described twice");
            families.insert(name.to_owned(), Family { kind: kind.to_owned(), ..Family::default() });
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
        let labels: BTreeMap<String, String> =
            labels.map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned())).collect();
        let part_of = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        let family = part_of.filter(|family| families.contains_key(*family)).unwrap_or(name);
        let family = families.get_mut(family).unwrap();
        family.labels.extend(labels.keys().filter(|label| *label != "le").cloned());
        all.push((name.to_owned(), labels, value.parse().unwrap()));
    }
    (families, all)
}

/// The metrics of kmr-core in the table of docs/metrics.md.
fn documented() -> BTreeMap<String, Family> {
    let page = include_str!("../../../../docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `kmr_"));
    let mut all = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 6, "{row}");
        let name = cells[0].trim_matches('`').to_owned();
        let unit = name.trim_end_matches("_total");
        assert_eq!(cells[2] == "seconds", unit.ends_with("_seconds"), "{row}");
        assert_eq!(cells[2] == "bytes", unit.ends_with("_bytes"), "{row}");
        let labels = cells[3].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let family = Family { kind: cells[1].to_owned(), labels };
        assert!(all.insert(name, family).is_none(), "{row} is there twice");
    }
    all.retain(|name, _| !name.starts_with("kmr_clickhouse_"));
    all
}

async fn scrape(handle: &ConsumerHandle) -> (BTreeMap<String, Family>, Series) {
    let scraped = parse(&handle.metrics(MetricsFormat::Prometheus).await);
    let negative: Vec<_> =
        scraped.1.iter().filter(|(.., value)| !value.is_finite() || *value < 0.0).collect();
    assert!(negative.is_empty(), "{negative:?}");
    scraped
}

/// The value of a metric with these labels. `None`: it has no such series.
fn value(series: &Series, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let has = |of: &BTreeMap<String, String>| {
        labels.iter().all(|(label, value)| of.get(*label).is_some_and(|known| known == value))
    };
    let mut found = series.iter().filter(|(known, of, _)| known == name && has(of)).map(|(.., value)| *value);
    let first = found.next();
    assert_eq!(found.next(), None, "{name} {labels:?} has several series");
    first
}

/// Waits until a scrape meets the condition.
async fn until(handle: &ConsumerHandle, what: &str, holds: impl Fn(&Series) -> bool) -> Series {
    let started = Instant::now();
    loop {
        let series = scrape(handle).await.1;
        if holds(&series) {
            return series;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "never: {what} in {series:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The partitions that have series.
fn partitions(series: &Series) -> BTreeSet<String> {
    series.iter().filter_map(|(_, labels, _)| labels.get("partition").cloned()).collect()
}

/// Takes anything. Its first deliveries fail, and the sink has a code for that.
pub(crate) struct Flaky<T> {
    rows: Vec<T>,
    failures: Arc<AtomicU32>,
}

impl<T> Flaky<T> {
    pub(crate) fn new(failures: u32) -> Self {
        Self { rows: Vec::new(), failures: Arc::new(failures.into()) }
    }
}

struct FlakyBatch(Arc<AtomicU32>);

#[async_trait]
impl<T: Send + 'static> Reducer for Flaky<T> {
    type Rows = Vec<T>;
    type Output = ();

    fn options(&self) -> BatchOptions {
        let retry = RetryPolicy::default().with_initial_backoff(Duration::from_millis(1));
        let options = BatchOptions::default().with_max_age(Duration::from_millis(50)).with_retry(retry);
        options.with_attempt_timeout(Duration::from_secs(1))
    }

    fn new_rows(&self) -> Vec<T> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<T>>) -> Result<(), BoxError> {
        self.rows.extend(chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        self.rows.clear();
        Ok(Box::new(FlakyBatch(self.failures.clone())))
    }
}

#[async_trait]
impl Delivery for FlakyBatch {
    type Output = ();

    async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
        let failed = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match failed {
            Ok(_) => Err(DeliveryError::retryable("too many parts").with_code("252")),
            Err(_) => Ok(Delivered::new(())),
        }
    }
}

/// The records 7 and 17 of each partition fail.
pub(crate) fn picky(record: &Record<'_>) -> Result<(i32, i64), BoxError> {
    if record.offset() % 10 == 7 {
        return Err(CodedError::new("bad", "an offset that ends with 7").into());
    }
    place(record)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_is_not_scalable_while_the_sink_fails() {
    let cluster = Cluster::start();
    cluster.produce(20);
    let sink = Flaky::new(200);
    let failures = sink.failures.clone();
    let consumer = Consumer::builder()
        .topics(["events"])
        .config(cluster.config(&KIP_848))
        .strategy(Strategy::new().map(place).reduce(sink).reduce_err(Flaky::<DeadLetter>::new(0)))
        .build()
        .unwrap();
    let running = Running { handle: consumer.handle(), task: tokio::spawn(consumer.run()) };
    let handle = running.handle.clone();
    let scalable = |series: &Series| value(series, "kmr_scalable_lag_records", &[]);
    let lag = |series: &Series| {
        series
            .iter()
            .filter(|(name, ..)| name == "kmr_partition_lag_records")
            .map(|(.., lag)| lag)
            .sum::<f64>()
    };
    // Four partitions of 20 records, and none of them is finished.
    let fails = |series: &Series| {
        failures.load(Ordering::SeqCst) < 190 && lag(series) == 80.0 && scalable(series) == Some(0.0)
    };
    until(&handle, "the sink fails", fails).await;
    failures.store(0, Ordering::SeqCst);
    until(&handle, "everything is delivered", |series| lag(series) == 0.0).await;
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_has_the_metrics_of_the_table_and_no_others() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(20);
    let consumer = Consumer::builder()
        .topics(["events"])
        .config(cluster.config(&KIP_848))
        .commit_interval(Duration::from_millis(100))
        .strategy(Strategy::new().map(picky).reduce(Flaky::new(3)).reduce_err(Flaky::<DeadLetter>::new(0)))
        .build()
        .unwrap();
    let running = Running { handle: consumer.handle(), task: tokio::spawn(consumer.run()) };
    let handle = running.handle.clone();
    let committed = |series: &Series| {
        let offsets = (0..4).filter_map(|number: i32| {
            value(series, "kmr_partition_committed_offset", &[("partition", &number.to_string())])
        });
        offsets.filter(|offset| *offset == 20.0).count() == 4
    };
    until(&handle, "everything is committed", committed).await;
    let other = cluster.consume(&KIP_848, &seen);
    until(&handle, "partitions move", |series| partitions(series).len() == 2).await;
    let known = |series: &Series| {
        let late = series.iter().filter(|(name, ..)| name == "kmr_partition_late").count();
        let lags = series.iter().filter(|(name, ..)| name == "kmr_partition_lag_records").count();
        (late, lags) == (2, 2)
    };
    let series = until(&handle, "a health check has seen the partitions that are left", known).await;
    let (families, _) = scrape(&handle).await;
    assert_eq!(families, documented());

    let counted = |name, labels: &[(&str, &str)]| value(&series, name, labels);
    assert_eq!(counted("kmr_records_total", &[]), Some(80.0));
    assert_eq!(counted("kmr_dead_letters_total", &[("stage", "map 1"), ("code", "bad")]), Some(8.0));
    assert_eq!(counted("kmr_delivered_rows_total", &[("stage", "reduce 1")]), Some(72.0));
    let failed = [("stage", "reduce 1"), ("outcome", "retryable"), ("code", "252")];
    assert_eq!(counted("kmr_delivery_attempts_total", &failed), Some(3.0));
    let ended = counted("kmr_delivery_duration_seconds_count", &[("stage", "reduce 1")]);
    let delivered = [("stage", "reduce 1"), ("outcome", "delivered")];
    assert_eq!(counted("kmr_delivery_attempts_total", &delivered), ended);
    assert_eq!(counted("kmr_batch_rows_sum", &[("stage", "reduce 1")]), Some(72.0));
    assert_eq!(counted("kmr_deliveries_in_flight", &[("stage", "reduce 1")]), Some(0.0));
    assert_eq!(counted("kmr_connected", &[]), Some(1.0));
    for partition in partitions(&series) {
        let labels = [("group", "group"), ("topic", "events"), ("partition", &*partition)];
        assert_eq!(counted("kmr_partition_lag_records", &labels), Some(0.0));
    }
    assert!(counted("kmr_rebalance_duration_seconds_count", &[("change", "revoke")]) >= Some(1.0));

    let text = handle.metrics(MetricsFormat::OpenMetrics).await;
    assert!(text.ends_with("# EOF\n") && text.contains("# UNIT kmr_memory_used_bytes bytes\n"), "{text}");
    other.stop().await.unwrap();
    running.stop().await.unwrap();
    let (_, series) = scrape(&handle).await;
    assert_eq!((value(&series, "kmr_connected", &[]), partitions(&series)), (Some(0.0), BTreeSet::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_of_a_revoked_partition_are_gone_from_its_consumer() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    cluster.produce(10);
    let first = cluster.consume(&KIP_848, &seen);
    until(&first.handle, "all are assigned", |series| partitions(series).len() == 4).await;
    let second = cluster.consume(&KIP_848, &seen);
    let of_second =
        until(&second.handle, "the second owns two", |series| partitions(series).len() == 2).await;
    // The first has answered, or the second would own none.
    let of_first = scrape(&first.handle).await.1;
    assert_eq!(partitions(&of_first).len(), 2);
    assert!(partitions(&of_first).is_disjoint(&partitions(&of_second)));
    assert_eq!(value(&of_first, "kmr_assigned_partitions", &[]), Some(2.0));
    second.stop().await.unwrap();
    first.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_in_seconds_is_the_age_of_the_oldest_unfinished_record() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    let millis =
        |time: SystemTime| i64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let timestamps = [5_000, 1_000, 300].map(|age| millis(SystemTime::now()) - age * 1_000);
    for timestamp in timestamps {
        let record = BaseRecord::<(), _>::to("events").payload("x").partition(1).timestamp(timestamp);
        cluster.producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    cluster.producer.flush(Duration::from_secs(10)).unwrap();
    let permits = Arc::new(Semaphore::new(1));
    let running = cluster.consume_with_permits(&permits, &seen);
    let handle = &running.handle;
    let labels = [("topic", "events"), ("partition", "1")];
    for finished in 1..3_i64 {
        let left = format!("{finished} of 3 records are finished");
        let open = f64::from(3 - i32::try_from(finished).unwrap());
        let series =
            until(handle, &left, |series| value(series, "kmr_partition_lag_records", &labels) == Some(open))
                .await;
        let timestamp = timestamps[usize::try_from(finished).unwrap()];
        let age = (millis(SystemTime::now()) - timestamp) as f64 / 1_000.0;
        let lag = value(&series, "kmr_partition_lag_seconds", &labels).unwrap();
        assert!((age - 2.0..=age).contains(&lag), "{lag} s, but the record is {age} s old");
        permits.add_permits(1);
    }
    let none = |series: &Series| value(series, "kmr_partition_lag_seconds", &labels) == Some(0.0);
    let series = until(handle, "no record is unfinished", none).await;
    assert_eq!(value(&series, "kmr_partition_lag_records", &labels), Some(0.0));
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_records_nothing_has_an_empty_scrape() {
    let (cluster, seen) = (Cluster::start(), Seen::default());
    let consumer = Consumer::builder()
        .topics(["events"])
        .config(cluster.config(&KIP_848))
        .record_metrics(false)
        .strategy(Strategy::new().map(place).reduce(Count::quick(&seen)))
        .build()
        .unwrap();
    assert_eq!(consumer.handle().metrics(MetricsFormat::Prometheus).await, "");
}
