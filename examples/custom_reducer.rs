//! A reducer of your own, which keeps a sum for each key.
//!
//! Shows the contract of `Reducer`: `accept` only accumulates, `freeze` closes the batch, and the
//! `Delivery` does the I/O. kmr does retries, timeouts, back-pressure and commits in order. Here
//! the first attempt of every batch fails, and no row is lost or duplicated.
//!
//! ```sh
//! cargo run -p kmr-examples --example custom_reducer
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, Consumer, Delivered, Delivery, DeliveryError, Record, Reducer,
    RetryPolicy, async_trait, processing_strategy,
};
use kmr_examples::{expect_same, run_to_end};

type Totals = BTreeMap<String, i64>;

/// What the map stage returns.
struct Booking {
    account: String,
    amount: i64,
}

/// The reducer. It aggregates rows as they arrive, so that a batch holds one entry for each key.
#[derive(Default)]
struct Sums {
    open: Totals,
    ledger: Arc<Mutex<Totals>>,
}

#[async_trait]
impl Reducer for Sums {
    /// The map tasks fill these in parallel.
    type Rows = Vec<Booking>;
    /// No later stage receives a value.
    type Output = ();

    fn options(&self) -> BatchOptions {
        BatchOptions::default()
            .with_max_rows(100)
            .with_max_age(Duration::from_millis(50))
            .with_retry(RetryPolicy::default().with_initial_backoff(Duration::from_millis(1)))
    }

    fn new_rows(&self) -> Vec<Booking> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<Booking>>) -> Result<(), BoxError> {
        for booking in chunk.rows {
            *self.open.entry(booking.account).or_default() += booking.amount;
        }
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        Ok(Box::new(Batch { sums: std::mem::take(&mut self.open), ledger: self.ledger.clone() }))
    }
}

/// A frozen batch. Every attempt delivers the same one.
struct Batch {
    sums: Totals,
    ledger: Arc<Mutex<Totals>>,
}

#[async_trait]
impl Delivery for Batch {
    type Output = ();

    async fn deliver(&self, attempt: Attempt) -> Result<Delivered<()>, DeliveryError> {
        if attempt.number == 1 {
            return Err(DeliveryError::retryable("the ledger is busy"));
        }
        // `Ok` promises that the whole batch is stored. A failure has to come before the first
        // write.
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        for (account, sum) in &self.sums {
            *ledger.entry(account.clone()).or_default() += sum;
        }
        println!("booked {:?} at attempt {}", self.sums, attempt.number);
        Ok(Delivered::new(()))
    }
}

fn parse(record: &Record<'_>) -> Result<Booking, BoxError> {
    let account = std::str::from_utf8(record.key().ok_or("no account")?)?.to_owned();
    Ok(Booking { account, amount: std::str::from_utf8(record.payload().ok_or("no amount")?)?.parse()? })
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic("bookings", 3)?;
    let booking = |n: i32| {
        NewRecord::new(n % 3).with_key(if n % 2 == 0 { "even" } else { "odd" }).with_payload(n.to_string())
    };
    cluster.produce("bookings", (0..500).map(booking))?;

    let sums = Sums::default();
    let ledger = sums.ledger.clone();
    let consumer = Consumer::builder()
        .topics(["bookings"])
        .config(cluster.client_config("custom-reducer"))
        .commit_interval(Duration::from_millis(50))
        // Without `reduce_err`, the first record that fails stops the consumer.
        .strategy(processing_strategy!({
            map => parse,
            reduce => sums,
        }))
        .build()?;
    run_to_end(consumer, &cluster, &["bookings"]).await?;

    let ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner).clone();
    println!("the ledger: {ledger:?}");
    expect_same("the ledger", &ledger, &[("even".to_owned(), 62_250), ("odd".to_owned(), 62_500)].into())
}
