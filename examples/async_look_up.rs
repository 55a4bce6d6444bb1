//! A map stage that calls a network service, with several calls at once in each partition.
//!
//! Shows an async map stage with `map_concurrency` by key: the orders of one customer are looked up
//! one after the other. A call that fails with status 503 is retried and gives no dead letter. Rows
//! and commits keep the order of the records.
//!
//! ```sh
//! cargo run -p kmr-examples --example async_look_up
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{
    AsyncMapper, BoxError, Concurrency, Consumer, OwnedRecord, RetryPolicy, Retryable, async_trait,
    processing_strategy,
};
use kmr_examples::{expect_same, run_to_end};
use kmr_sinks::MemoryWriter;

/// Stands for the client of a service, as of reqwest, hyper or a database.
#[derive(Default)]
struct Service {
    calls: AtomicUsize,
    in_progress: AtomicUsize,
    max_in_progress: AtomicUsize,
}

impl Service {
    /// Returns status and body.
    async fn country_of(&self, customer: &str) -> (u16, &'static str) {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let in_progress = self.in_progress.fetch_add(1, Ordering::SeqCst) + 1;
        self.max_in_progress.fetch_max(in_progress, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.in_progress.fetch_sub(1, Ordering::SeqCst);
        match customer {
            _ if call % 10 == 3 => (503, "busy"),
            "ada" => (200, "GB"),
            "blaise" => (200, "FR"),
            "emmy" => (200, "DE"),
            _ => (404, "no such customer"),
        }
    }
}

/// The map stage: a type, because it holds the client.
struct LookUp(Arc<Service>);

#[async_trait]
impl AsyncMapper for LookUp {
    type Output = (i64, String);

    async fn map(&self, record: OwnedRecord) -> Result<Self::Output, BoxError> {
        let customer = std::str::from_utf8(record.key().ok_or("no customer")?)?;
        match self.0.country_of(customer).await {
            (200, country) => Ok((record.offset(), format!("{customer} in {country}"))),
            // kmr retries the record. Later records do not overtake it downstream.
            (status @ (429 | 500..), body) => Err(Retryable::new(format!("status {status}: {body}")).into()),
            // A dead letter.
            (status, body) => Err(format!("status {status}: {body}").into()),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic("orders", 1)?;
    let customers = ["ada", "blaise", "emmy", "unknown"];
    let order = |id: usize| NewRecord::new(0).with_key(customers[id % 4]).with_payload(id.to_string());
    cluster.produce("orders", (0..40).map(order))?;

    let service = Arc::new(Service::default());
    let sink = MemoryWriter::new().max_age(Duration::from_millis(50));
    let failed = MemoryWriter::new().max_age(Duration::from_millis(50));
    let (rows, dead_letters) = (sink.records(), failed.records());
    let consumer = Consumer::builder()
        .topics(["orders"])
        .config(cluster.client_config("async-look-up"))
        .commit_interval(Duration::from_millis(50))
        .strategy(processing_strategy!({
            map_concurrency => Concurrency::by_key(16),
            map_retry => RetryPolicy::default()
                .with_initial_backoff(Duration::from_millis(50))
                .with_give_up_after(Some(Duration::from_secs(20))),
            map => LookUp(service.clone()),
            reduce => sink,
            reduce_err => failed,
        }))
        .build()?;
    run_to_end(consumer, &cluster, &["orders"]).await?;

    let (rows, dead_letters) = (rows.take(), dead_letters.take());
    let calls = service.calls.load(Ordering::SeqCst);
    let at_once = service.max_in_progress.load(Ordering::SeqCst);
    println!(
        "{calls} calls for 40 orders, up to {at_once} at once; first and last: {:?}, {:?}",
        rows.first(),
        rows.last()
    );
    println!("{} dead letters, for example: {}", dead_letters.len(), dead_letters[0]);
    let in_order = rows.is_sorted_by_key(|(offset, _)| *offset);
    expect_same("rows, dead letters, order", &(rows.len(), dead_letters.len(), in_order), &(30, 10, true))?;
    expect_same("calls at once, one for each of four customers", &at_once, &4)
}
