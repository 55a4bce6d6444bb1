//! The strategies with which kmr itself is simulated. The payload of a record is an instruction for
//! the strategy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::{BoxError, Retryable};
use crate::fold::Fold;
use crate::graph::pipeline::Pipeline;
use crate::record::{OwnedRecord, Record};
use crate::stage::Concurrency;
use crate::strategy::Strategy;
use crate::testing::NewRecord;
use crate::testing::sim::{Fate, RowId, Simulation, Sinks};

/// A row, and whether the sink rejects it.
#[derive(Clone, Debug)]
struct Row {
    id: RowId,
    rejected: bool,
}

/// A row that is made of several rows with the same key.
#[derive(Clone, Debug)]
struct Total {
    key: i64,
    count: u64,
    ids: Vec<RowId>,
    rejected: bool,
}

impl Total {
    fn of(row: Row, keys: i64) -> Self {
        let key = (row.id.offset + row.id.number as i64) % keys;
        Self { key, count: 1, ids: vec![row.id], rejected: row.rejected }
    }

    fn merge(&mut self, later: Self) {
        self.count += later.count;
        self.ids.extend(later.ids);
    }

    /// A row that the sink rejects has a key of its own.
    fn key(&self) -> (i64, bool) {
        (self.key, self.rejected)
    }
}

/// The fold of rows. The number of keys depends on the seed. The rows of one record have different
/// keys, unless there are few.
fn fold(sinks: &Sinks) -> Fold<Row, (i64, bool), Total> {
    let keys = 1 + i64::try_from(sinks.seed() / 3 % 13).unwrap_or(0);
    Fold::by_key(
        move |row: &Row| Total::of(row.clone(), keys).key(),
        move |row| Total::of(row, keys),
        Total::merge,
    )
}

/// What the strategy does with a record. The payload holds it as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instruction {
    Rows(usize),
    Rejected(usize),
    Skip,
    Fail,
    Panic,
    Slow(u64),
    /// Fails that many times with a retryable error.
    Retry(u64),
}

impl Instruction {
    fn random(chance: u64) -> Self {
        let more = chance >> 32;
        match chance % 100 {
            0..60 => Instruction::Rows(1),
            60..75 => Instruction::Rows(usize::try_from(more % 4).unwrap_or(0)),
            75..80 => Instruction::Rejected(1 + usize::try_from(more % 3).unwrap_or(0)),
            80..86 => Instruction::Skip,
            86..93 => Instruction::Fail,
            93..95 => Instruction::Panic,
            95..97 => Instruction::Retry(more % 4),
            _ => Instruction::Slow(more % 800),
        }
    }

    fn text(self) -> String {
        match self {
            Instruction::Rows(rows) => format!("rows {rows}"),
            Instruction::Rejected(rows) => format!("rejects {rows}"),
            Instruction::Skip => "skip 0".to_owned(),
            Instruction::Fail => "fail 0".to_owned(),
            Instruction::Panic => "panic 0".to_owned(),
            Instruction::Slow(millis) => format!("slow {millis}"),
            Instruction::Retry(times) => format!("retry {times}"),
        }
    }

    fn read(record: &Record<'_>) -> Self {
        let text = std::str::from_utf8(record.payload().unwrap_or_default()).unwrap_or_default();
        let (word, number) = text.split_once(' ').unwrap_or_default();
        let number: u64 = number.parse().unwrap_or(0);
        let rows = usize::try_from(number).unwrap_or(0);
        match word {
            "rows" => Instruction::Rows(rows),
            "rejects" => Instruction::Rejected(rows),
            "slow" => Instruction::Slow(number),
            "retry" => Instruction::Retry(number),
            "fail" => Instruction::Fail,
            "panic" => Instruction::Panic,
            _ => Instruction::Skip,
        }
    }

    fn fate(self) -> Fate {
        match self {
            Instruction::Rows(0) | Instruction::Skip => Fate::Skipped,
            Instruction::Rows(rows) => Fate::Rows(rows),
            Instruction::Slow(_) | Instruction::Retry(_) => Fate::Rows(1),
            Instruction::Rejected(_) | Instruction::Fail | Instruction::Panic => Fate::DeadLetter,
        }
    }
}

fn rows(record: &Record<'_>) -> Result<Vec<Row>, BoxError> {
    let row = |number, rejected| Row { id: RowId::of(record, number), rejected };
    match Instruction::read(record) {
        Instruction::Rows(count) => Ok((0..count).map(|number| row(number, false)).collect()),
        // The sink rejects the last row, and stores the other rows of the record.
        Instruction::Rejected(count) => {
            Ok((0..count).map(|number| row(number, number + 1 == count)).collect())
        }
        Instruction::Slow(_) | Instruction::Retry(_) => Ok(vec![row(0, false)]),
        Instruction::Skip => Ok(Vec::new()),
        Instruction::Fail => Err("always fails".into()),
        // This skips the panic hook, which would print each panic.
        Instruction::Panic => std::panic::resume_unwind(Box::new("always panics")),
    }
}

/// How many times this process has mapped each record.
#[derive(Clone, Default)]
struct Attempts(Arc<Mutex<BTreeMap<RowId, u64>>>);

impl Attempts {
    /// Fails until the record has been retried often enough.
    fn count(&self, record: &Record<'_>) -> Result<(), BoxError> {
        let Instruction::Retry(times) = Instruction::read(record) else { return Ok(()) };
        let mut attempts = self.0.lock().unwrap();
        let attempt = attempts.entry(RowId::of(record, 0)).or_default();
        *attempt += 1;
        if *attempt > times { Ok(()) } else { Err(Retryable::new("a retry will succeed").into()) }
    }
}

fn pass_on(rows: Vec<Row>) -> Result<Vec<Row>, BoxError> {
    Ok(rows)
}

/// The shape of the strategy depends on the seed.
fn strategy(sinks: &Sinks) -> Pipeline {
    let store = || sinks.sink("store", |row: &Row| row.id.clone()).rejecting(|row| row.rejected);
    let attempts = Attempts::default();
    let sync = move |record: &Record<'_>| attempts.count(record).and_then(|()| rows(record));
    let attempts = Attempts::default();
    let slow = move |record: OwnedRecord| {
        let attempts = attempts.clone();
        async move {
            let instruction = Instruction::read(&record.as_record());
            if let Instruction::Slow(millis) = instruction {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            attempts.count(&record.as_record())?;
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
            .filter(|record: &Record<'_>| Instruction::read(record) != Instruction::Skip)
            .flat_map(sync)
            .reduce(store())
            .flat_map(pass_on)
            .reduce(sinks.sink("archive", |row: &Row| row.id.clone()))
            .reduce_err(sinks.dead_letters()),
    }
}

/// The strategies of exactly-once mode: map stages and one reduce.
pub(super) fn exact() -> Simulation {
    let strategy = |sinks: &Sinks| -> Pipeline {
        let store = || sinks.sink("store", |row: &Row| row.id.clone()).rejecting(|row| row.rejected);
        let attempts = Attempts::default();
        let sync = move |record: &Record<'_>| attempts.count(record).and_then(|()| rows(record));
        let slow = move |record: OwnedRecord| async move {
            let instruction = Instruction::read(&record.as_record());
            if let Instruction::Slow(millis) = instruction {
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
                by_key.reduce(store()).flat_map(pass_on).reduce_err(sinks.dead_letters())
            }
        }
    };
    Simulation::new(strategy).records(record).fate(exact_fate).exactly_once()
}

/// The strategies with folds.
fn folding_strategy(sinks: &Sinks) -> Pipeline {
    let store = || {
        let store = sinks.folded_sink("store", |total: &Total| total.ids.clone(), |total| total.count);
        fold(sinks).into(store.rejecting(|total| total.rejected))
    };
    let attempts = Attempts::default();
    let sync = move |record: &Record<'_>| attempts.count(record).and_then(|()| rows(record));
    let slow = move |record: OwnedRecord| async move {
        let instruction = Instruction::read(&record.as_record());
        if let Instruction::Slow(millis) = instruction {
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
        _ if sinks.is_exactly_once() => {
            let by_key = Strategy::new().map_concurrency(Concurrency::by_key(8)).flat_map(slow);
            by_key.reduce(store()).reduce_err(sinks.dead_letters())
        }
        _ => {
            let archive =
                sinks.folded_sink("archive", |total: &Total| total.ids.clone(), |total| total.count);
            let fold = Fold::by_key(Total::key, |total| total, Total::merge);
            let pass_on = |totals: Vec<Total>| Ok::<_, BoxError>(totals);
            let stored = Strategy::new().flat_map(sync).reduce(store());
            stored.flat_map(pass_on).reduce(fold.into(archive)).reduce_err(sinks.dead_letters())
        }
    }
}

/// Folds in at-least-once mode.
pub(super) fn folded() -> Simulation {
    Simulation::new(folding_strategy).records(record).fate(|record| Instruction::read(record).fate())
}

/// Folds in exactly-once mode.
pub(super) fn folded_exactly_once() -> Simulation {
    Simulation::new(folding_strategy).records(record).fate(exact_fate).exactly_once()
}

fn record(chance: u64) -> NewRecord {
    let record = NewRecord::default().with_payload(Instruction::random(chance).text());
    if chance.is_multiple_of(7) { record } else { record.with_key(format!("key {}", chance % 5)) }
}

fn exact_fate(record: &Record<'_>) -> Fate {
    match Instruction::read(record) {
        Instruction::Rejected(rows) => Fate::Rejectable(rows),
        instruction => instruction.fate(),
    }
}

pub(super) fn standard() -> Simulation {
    Simulation::new(strategy).records(record).fate(|record| Instruction::read(record).fate())
}
