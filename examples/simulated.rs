//! Your strategy on a simulated Kafka: a thousand runs with rebalances, crashes and failing sinks.
//!
//! The runs take seconds, and the simulator's invariant checker checks each of them.
//!
//! ```sh
//! cargo run -p kmr-examples --example simulated
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use kmr_core::testing::NewRecord;
use kmr_core::testing::sim::{Fate, RowId, Simulation, Sinks};
use kmr_core::{BoxError, IntoPipeline, Record, Strategy};

/// A row of the strategy under test. Its id identifies the record and the row for the simulation.
#[derive(Clone, Debug)]
struct Reading {
    id: RowId,
    celsius: f64,
}

/// The code under test: one record holds the readings of several sensors, `20.5,21,-3`.
fn readings(record: &Record<'_>) -> Result<Vec<Reading>, BoxError> {
    let text = std::str::from_utf8(record.payload().ok_or("no payload")?)?;
    let reading = |(number, value): (usize, &str)| {
        Ok(Reading {
            id: RowId::of(record, number),
            celsius: value.parse().map_err(|_| format!("{value:?} is no number"))?,
        })
    };
    text.split(',').enumerate().map(reading).collect()
}

/// The strategy, with simulated sinks in place of ClickHouse and the dead-letter topic.
fn strategy(sinks: &Sinks) -> impl IntoPipeline + use<> {
    Strategy::new()
        .flat_map(readings)
        .filter(|reading: &Reading| reading.celsius > -273.15)
        .reduce(sinks.sink("readings", |reading: &Reading| reading.id.clone()))
        .reduce_err(sinks.dead_letters())
}

/// Records of all kinds, from random numbers.
fn record(chance: u64) -> NewRecord {
    match chance % 20 {
        0 => NewRecord::default(),
        1 => NewRecord::default().with_payload("20.5,broken,3"),
        2 => NewRecord::default().with_payload("-300"),
        sensors => NewRecord::default().with_payload(vec!["21.5"; sensors as usize % 4 + 1].join(",")),
    }
}

/// The required outcome of each record.
fn fate(record: &Record<'_>) -> Fate {
    match record.payload() {
        None | Some(b"20.5,broken,3") => Fate::DeadLetter,
        Some(b"-300") => Fate::Skipped,
        Some(text) => Fate::Rows(text.split(|byte| *byte == b',').count()),
    }
}

fn main() {
    let simulation = Simulation::new(strategy).records(record).fate(fate);
    match simulation.check(0..1000) {
        Ok(summary) => println!("{summary}"),
        Err(failure) => {
            println!("{failure}");
            std::process::exit(1);
        }
    }
}
