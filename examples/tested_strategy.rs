//! A strategy with its tests: step by step with a `Driver`, and with faults in a `Simulation`.
//!
//! The strategy is a function of its sinks. The program passes real ones, a test passes others. The
//! tests need no server, no sleep and no port.
//!
//! ```sh
//! cargo test -p kmr-examples --example tested_strategy
//! cargo run -p kmr-examples --example tested_strategy
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use std::time::Duration;

use kmr_core::testing::{EmbeddedCluster, NewRecord};
use kmr_core::{BoxError, Consumer, DeadLetter, Pipeline, Record, Reducer, processing_strategy};
use kmr_examples::{expect_same, run_to_end};
use kmr_sinks::MemoryWriter;

/// A row. The place of its record identifies it, in the table and in a simulation.
#[derive(Clone, Debug, PartialEq)]
struct Order {
    topic: String,
    partition: i32,
    offset: i64,
    cents: u64,
}

fn order(record: &Record<'_>) -> Result<Order, BoxError> {
    let cents = std::str::from_utf8(record.payload().ok_or("a tombstone")?)?.parse()?;
    let (topic, partition) = (record.topic().to_owned(), record.partition());
    Ok(Order { topic, partition, offset: record.offset(), cents })
}

/// The strategy under test. In your program, `rows` is a `ClickHouseWriter<Order>`.
fn strategy(rows: impl Reducer<Rows = Vec<Order>>, failed: impl Reducer<Rows = Vec<DeadLetter>>) -> Pipeline {
    processing_strategy!({
        map => order,
        filter => |order| order.cents > 0,
        reduce => rows,
        reduce_err => failed,
    })
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let cluster = EmbeddedCluster::start()?;
    cluster.create_topic("orders", 1)?;
    cluster.produce("orders", ["350", "0", "free"].map(|text| NewRecord::new(0).with_payload(text)))?;
    let rows = MemoryWriter::new().max_age(Duration::from_millis(50));
    let failed = MemoryWriter::new().max_age(Duration::from_millis(50));
    let (orders, dead_letters) = (rows.records(), failed.records());
    let consumer = Consumer::builder()
        .topics(["orders"])
        .config(cluster.client_config("tested-strategy"))
        .commit_interval(Duration::from_millis(50))
        .strategy(strategy(rows, failed))
        .build()?;
    run_to_end(consumer, &cluster, &["orders"]).await?;
    println!("{} order, {} dead letter", orders.len(), dead_letters.len());
    expect_same("cents", &orders.lock().iter().map(|order| order.cents).collect(), &vec![350])
}

#[cfg(test)]
mod tests {
    use kmr_core::TopicPartition;
    use kmr_core::testing::Driver;
    use kmr_core::testing::sim::{Fate, RowId, Simulation};

    use super::*;

    /// Only for kmr: runs the program as well.
    #[test]
    fn the_program_runs() -> Result<(), BoxError> {
        main()
    }

    /// What a record becomes, when its batch is due, and what is committed.
    #[test]
    fn orders_are_stored_and_others_are_dead_letters() -> Result<(), BoxError> {
        let (rows, failed) = (MemoryWriter::new(), MemoryWriter::new());
        let (orders, dead_letters) = (rows.records(), failed.records());
        let mut driver = Driver::new(strategy(rows, failed));
        driver.pipe_all(["350", "0", "free"].map(|text| NewRecord::new(0).with_payload(text)));
        assert!(orders.lock().is_empty(), "the batch is not due");
        driver.advance(Duration::from_secs(1));

        let order = Order { topic: "driver".to_owned(), partition: 0, offset: 0, cents: 350 };
        assert_eq!(*orders.lock(), [order]);
        assert_eq!(dead_letters.lock()[0].stage, "map 1");
        assert_eq!(driver.committed(0), Some(3));
        driver.finish()?;
        Ok(())
    }

    /// A sink that fails twice: the batch is delivered again, and nothing is committed before.
    #[test]
    fn a_failing_sink_delays_the_commit() -> Result<(), BoxError> {
        let rows = MemoryWriter::new().failing(2);
        let orders = rows.records();
        let mut driver = Driver::new(strategy(rows, MemoryWriter::new()));
        driver.pipe(NewRecord::new(0).with_payload("350"));
        driver.advance(Duration::from_secs(1));
        assert_eq!((orders.len(), driver.committed(0)), (0, None));
        driver.advance(Duration::from_secs(30));
        assert_eq!((orders.len(), driver.committed(0)), (1, Some(1)));
        driver.finish()?;
        Ok(())
    }

    /// Whatever fails, no order is lost and no offset is committed too early. Run more seeds with
    /// `--release`.
    #[test]
    fn no_order_is_lost_in_any_simulated_run() {
        let simulation = Simulation::new(|sinks| {
            let id = |order: &Order| {
                RowId::new(TopicPartition::new(order.topic.as_str(), order.partition), order.offset, 0)
            };
            strategy(sinks.sink("orders", id), sinks.dead_letters())
        })
        .records(|chance| NewRecord::default().with_payload(["350", "0", "free"][chance as usize % 3]))
        .fate(|record| match record.payload() {
            Some(b"350") => Fate::Rows(1),
            Some(b"0") => Fate::Skipped,
            _ => Fate::DeadLetter,
        });
        match simulation.check(0..10) {
            Ok(summary) => assert_eq!(summary.seeds, 10),
            Err(failure) => panic!("{failure}"),
        }
    }
}
