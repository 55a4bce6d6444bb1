//! `verify`: proves, offset by offset, that what a group has committed is in the table or among the dead letters.
//!
//! 1. What is committed is read first, then the dead letters, then log and table: a record below the committed offset has to
//!    be there by then, whatever goes on meanwhile.
//! 2. Memory is bounded by the window, whatever the sizes of topic and table: a bit for each offset of a window and side, for
//!    each of [`WORKERS`] partitions; and 2 bytes at most for each dead letter.

use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use rdkafka::ClientConfig;
use tokio::task::spawn_blocking;

#[path = "partition_account.rs"]
mod audit;
#[path = "dead_letters.rs"]
mod letters;
#[path = "topic_log.rs"]
mod log;
#[path = "offset_sets.rs"]
mod offsets;
mod report;
#[path = "table_rows.rs"]
mod table;

use audit::{Account, Bounds, Rows, dead_within};
pub(crate) use letters::DEFAULT_PREFIX;
use letters::DeadLetters;
use log::{LogReader, Read};
use offsets::Bits;
use report::Report;
use table::Audited;

use crate::cli::VerifyArgs;
use crate::output;

/// Partitions that are looked at side by side.
const WORKERS: usize = 4;

/// Compares, prints, and judges: exit code 1 unless all is well.
pub(crate) async fn verify(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let report = Arc::new(Audit::open(args).await?).run().await?;
    let args = &report.args;
    output::result(&if args.json { report.json().to_string() } else { report.text() });
    Ok(if report.passes() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What all workers share.
struct Audit {
    args: Arc<VerifyArgs>,
    config: ClientConfig,
    bounds: BTreeMap<i32, Bounds>,
    compacted: Option<bool>,
    letters: DeadLetters,
    left: Mutex<VecDeque<i32>>,
}

impl Audit {
    /// Everything but the records and the rows.
    async fn open(args: VerifyArgs) -> anyhow::Result<Self> {
        let args = Arc::new(args);
        let config = log::config(&args)?;
        let (shared, settings) = (args.clone(), config.clone());
        let bounds = blocking(move || log::bounds(&settings, &shared)).await?;
        let (shared, settings) = (args.clone(), config.clone());
        let letters = blocking(move || DeadLetters::read(&settings, &shared)).await?;
        let compacted = log::is_compacted(&config, &args.kafka.topic).await;
        let left = Mutex::new(bounds.keys().copied().collect());
        Ok(Self { args, config, bounds, compacted, letters, left })
    }

    async fn run(self: Arc<Self>) -> anyhow::Result<Report> {
        let table = Audited::open(&self.args).await?;
        let (knows_topics, held) = (table.knows_topics(), table.held().await?);
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..WORKERS.min(self.bounds.len()) {
            let (audit, held) = (self.clone(), held.clone());
            workers.spawn(async move { audit.work(&held).await });
        }
        let mut accounts = Vec::new();
        while let Some(done) = workers.join_next().await {
            accounts.extend(done.context("a worker of the audit")??);
        }
        accounts.sort_by_key(|account: &Account| account.partition);
        let strange = held.iter().filter(|(partition, _)| {
            !i32::try_from(**partition).is_ok_and(|partition| self.bounds.contains_key(&partition))
        });
        Ok(Report {
            strange: strange.map(|(partition, held)| (*partition, held.rows)).collect(),
            args: self.args.clone(),
            accounts,
            compacted: self.compacted,
            knows_topics,
            repeated_letters: self.letters.repeated,
            nameless_letters: self.letters.nameless,
        })
    }

    fn next(&self) -> Option<(i32, Bounds)> {
        let partition = self.left.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
        self.bounds.get(&partition).map(|bounds| (partition, *bounds))
    }

    /// Takes partitions while there are any.
    async fn work(&self, held: &BTreeMap<i64, table::Held>) -> anyhow::Result<Vec<Account>> {
        let table = Audited::open(&self.args).await?;
        let mut reader = LogReader::new(&self.config, &self.args.kafka.topic)?;
        let mut accounts = Vec::new();
        while let Some((partition, bounds)) = self.next() {
            let first_row = held.get(&i64::from(partition)).map(|held| held.first);
            let (account, returned) = self.partition(&table, reader, partition, bounds, first_row).await?;
            reader = returned;
            accounts.push(account);
        }
        // Closing a consumer blocks.
        blocking(move || {
            drop(reader);
            Ok(accounts)
        })
        .await
    }

    async fn partition(
        &self,
        table: &Audited<'_>,
        mut reader: LogReader,
        partition: i32,
        bounds: Bounds,
        first_row: Option<u64>,
    ) -> anyhow::Result<(Account, LogReader)> {
        let mut account = Account::new(partition, bounds, self.args.list);
        let checked = account.checked.clone();
        if let Some(first_row) = first_row.filter(|row| *row < checked.start) {
            self.rows_alone(table, partition, first_row..checked.start, |rows| account.count_below(rows))
                .await?;
        }
        if !checked.is_empty() {
            reader.start(partition, checked.start)?;
        }
        let mut at = checked.start;
        while at < checked.end {
            let window = at..checked.end.min(at + self.args.window);
            let reading = read(reader, Bits::none_of(window.clone()));
            let (read, rows) = tokio::join!(reading, table.rows(partition, window.clone()));
            let (records, how_far, returned) = read?;
            reader = returned;
            match how_far {
                Read::Whole => {
                    let dead = dead_within(self.letters.of(partition), &window);
                    account.check(&records, &rows?, &dead);
                    at = window.end;
                }
                Read::BeginsAt(start) if start <= at => {
                    bail!(
                        "the broker does not hand out offset {at} of partition {partition}, and its log begins at {start}"
                    )
                }
                Read::BeginsAt(start) => {
                    let gone = at..start.min(checked.end);
                    account.taken(&gone);
                    self.rows_alone(table, partition, gone.clone(), |rows| account.count_below(rows)).await?;
                    at = gone.end;
                }
            }
            tracing::info!(partition, at, end = checked.end, "verified");
        }
        let beyond = checked.end..i64::MAX.cast_unsigned();
        self.rows_alone(table, partition, beyond, |rows| account.count_beyond(rows)).await?;
        Ok((account, reader))
    }

    /// The rows of offsets that are compared with nothing, window by window; empty stretches are jumped over.
    async fn rows_alone(
        &self,
        table: &Audited<'_>,
        partition: i32,
        range: std::ops::Range<u64>,
        mut each: impl FnMut(&Rows),
    ) -> anyhow::Result<()> {
        let mut at = range.start;
        while let Some(first) = table.next(partition, at).await?.filter(|offset| *offset < range.end) {
            let window = first..range.end.min(first.saturating_add(self.args.window));
            at = window.end;
            each(&table.rows(partition, window).await?);
        }
        Ok(())
    }
}

/// Reads a window where it does not hold up the runtime.
async fn read(mut reader: LogReader, mut records: Bits) -> anyhow::Result<(Bits, Read, LogReader)> {
    blocking(move || {
        let how_far = reader.read(&mut records)?;
        Ok((records, how_far, reader))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    spawn_blocking(call).await.context("a thread that reads Kafka")?
}
