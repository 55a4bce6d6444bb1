//! The strategies that kmr itself is simulated with: what a record's payload says is what becomes
//! of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::{BoxError, Retryable};
use crate::graph::pipeline::Pipeline;
use crate::record::{OwnedRecord, Record};
use crate::stage::Concurrency;
use crate::strategy::Strategy;
use crate::testing::NewRecord;
use crate::testing::sim::{Fate, RowId, Simulation, Sinks};

/// A row, and whether the sink refuses it.
#[derive(Clone, Debug)]
struct Row {
    id: RowId,
    refused: bool,
}

/// What is done to a record: its payload, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Rows(usize),
    Rejected(usize),
    Skip,
    Fail,
    Panic,
    Slow(u64),
    /// Fails that many times in a way that calls for another try.
    Again(u64),
}

impl Order {
    fn random(chance: u64) -> Self {
        let more = chance >> 32;
        match chance % 100 {
            0..60 => Order::Rows(1),
            60..75 => Order::Rows(usize::try_from(more % 4).unwrap_or(0)),
            75..80 => Order::Rejected(1 + usize::try_from(more % 3).unwrap_or(0)),
            80..86 => Order::Skip,
            86..93 => Order::Fail,
            93..95 => Order::Panic,
            95..97 => Order::Again(more % 4),
            _ => Order::Slow(more % 800),
        }
    }

    fn text(self) -> String {
        match self {
            Order::Rows(rows) => format!("rows {rows}"),
            Order::Rejected(rows) => format!("refused {rows}"),
            Order::Skip => "skip 0".to_owned(),
            Order::Fail => "fail 0".to_owned(),
            Order::Panic => "panic 0".to_owned(),
            Order::Slow(millis) => format!("slow {millis}"),
            Order::Again(times) => format!("again {times}"),
        }
    }

    fn read(record: &Record<'_>) -> Self {
        let text = std::str::from_utf8(record.payload().unwrap_or_default()).unwrap_or_default();
        let (word, number) = text.split_once(' ').unwrap_or_default();
        let number: u64 = number.parse().unwrap_or(0);
        let rows = usize::try_from(number).unwrap_or(0);
        match word {
            "rows" => Order::Rows(rows),
            "refused" => Order::Rejected(rows),
            "slow" => Order::Slow(number),
            "again" => Order::Again(number),
            "fail" => Order::Fail,
            "panic" => Order::Panic,
            _ => Order::Skip,
        }
    }

    fn fate(self) -> Fate {
        match self {
            Order::Rows(0) | Order::Skip => Fate::Skipped,
            Order::Rows(rows) => Fate::Rows(rows),
            Order::Slow(_) | Order::Again(_) => Fate::Rows(1),
            Order::Rejected(_) | Order::Fail | Order::Panic => Fate::DeadLetter,
        }
    }
}

fn rows(record: &Record<'_>) -> Result<Vec<Row>, BoxError> {
    let row = |number, refused| Row { id: RowId::of(record, number), refused };
    match Order::read(record) {
        Order::Rows(count) => Ok((0..count).map(|number| row(number, false)).collect()),
        // The last row is refused: the others of its record are in.
        Order::Rejected(count) => Ok((0..count).map(|number| row(number, number + 1 == count)).collect()),
        Order::Slow(_) | Order::Again(_) => Ok(vec![row(0, false)]),
        Order::Skip => Ok(Vec::new()),
        Order::Fail => Err("told to fail".into()),
        // Without the panic hook, which would print each.
        Order::Panic => std::panic::resume_unwind(Box::new("told to panic")),
    }
}

/// How often which record was tried in this process.
#[derive(Clone, Default)]
struct Tries(Arc<Mutex<BTreeMap<RowId, u64>>>);

impl Tries {
    /// Fails while the record wants to be tried again.
    fn count(&self, record: &Record<'_>) -> Result<(), BoxError> {
        let Order::Again(times) = Order::read(record) else { return Ok(()) };
        let mut tries = self.0.lock().unwrap();
        let tried = tries.entry(RowId::of(record, 0)).or_default();
        *tried += 1;
        if *tried > times { Ok(()) } else { Err(Retryable::new("told to fail for now").into()) }
    }
}

fn again(rows: Vec<Row>) -> Result<Vec<Row>, BoxError> {
    Ok(rows)
}

/// The shape of the strategy depends on the seed.
fn strategy(sinks: &Sinks) -> Pipeline {
    let store = || sinks.sink("store", |row: &Row| row.id.clone()).rejecting(|row| row.refused);
    let tries = Tries::default();
    let sync = move |record: &Record<'_>| tries.count(record).and_then(|()| rows(record));
    let tries = Tries::default();
    let slow = move |record: OwnedRecord| {
        let tries = tries.clone();
        async move {
            let order = Order::read(&record.as_record());
            if let Order::Slow(millis) = order {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            tries.count(&record.as_record())?;
            rows(&record.as_record())
        }
    };
    match sinks.seed() % 5 {
        0 => Strategy::new().flat_map(sync).reduce(store()).reduce_err(sinks.dead_letters()),
        1 => Strategy::new().flat_map(slow).reduce(store()).reduce_err(sinks.dead_letters()),
        2 => {
            let several = Strategy::new().map_concurrency(Concurrency::in_order(5)).flat_map(slow);
            several.reduce(store()).reduce_err(sinks.dead_letters())
        }
        3 => {
            let by_key = Strategy::new().map_concurrency(Concurrency::by_key(8)).flat_map(slow);
            by_key.reduce(store()).reduce_err(sinks.dead_letters())
        }
        _ => Strategy::new()
            .filter(|record: &Record<'_>| Order::read(record) != Order::Skip)
            .flat_map(sync)
            .reduce(store())
            .flat_map(again)
            .reduce(sinks.sink("archive", |row: &Row| row.id.clone()))
            .reduce_err(sinks.dead_letters()),
    }
}

/// The strategies of exactly-once mode: map stages and one reduce.
pub(super) fn exact() -> Simulation {
    fn fate(record: &Record<'_>) -> Fate {
        match Order::read(record) {
            Order::Rejected(rows) => Fate::Rejectable(rows),
            order => order.fate(),
        }
    }
    let strategy = |sinks: &Sinks| -> Pipeline {
        let store = || sinks.sink("store", |row: &Row| row.id.clone()).rejecting(|row| row.refused);
        let tries = Tries::default();
        let sync = move |record: &Record<'_>| tries.count(record).and_then(|()| rows(record));
        let slow = move |record: OwnedRecord| async move {
            let order = Order::read(&record.as_record());
            if let Order::Slow(millis) = order {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            rows(&record.as_record())
        };
        match sinks.seed() % 3 {
            0 => Strategy::new().flat_map(sync).reduce(store()).reduce_err(sinks.dead_letters()),
            1 => {
                let several = Strategy::new().map_concurrency(Concurrency::in_order(5)).flat_map(slow);
                several.reduce(store()).reduce_err(sinks.dead_letters())
            }
            _ => {
                let by_key = Strategy::new().map_concurrency(Concurrency::by_key(8)).flat_map(slow);
                by_key.reduce(store()).flat_map(again).reduce_err(sinks.dead_letters())
            }
        }
    };
    let records = |chance: u64| {
        let record = NewRecord::default().with_payload(Order::random(chance).text());
        if chance.is_multiple_of(7) { record } else { record.with_key(format!("key {}", chance % 5)) }
    };
    Simulation::new(strategy).records(records).fate(fate).exactly_once()
}

pub(super) fn standard() -> Simulation {
    Simulation::new(strategy)
        .records(|chance| {
            let record = NewRecord::default().with_payload(Order::random(chance).text());
            if chance % 7 == 0 { record } else { record.with_key(format!("key {}", chance % 5)) }
        })
        .fate(|record| Order::read(record).fate())
}
