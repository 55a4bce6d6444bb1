//! The audit: workers read partitions in parallel and compare them with the table, range by
//! range.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use rdkafka::ClientConfig;
use tokio::task::spawn_blocking;

use super::args::VerifyArgs;
use super::dead_letters::DeadLetters;
use super::offset_sets::Bits;
use super::partition_account::{Bounds, PartitionAccount, Rows, dead_letters_within};
use super::replays::Replays;
use super::report::Report;
use super::table_rows::{AuditedTable, HeldRows};
use super::topic_log::{self, LogReader, Progress, TopicBounds};
use crate::progress;

/// Number of partitions that are read in parallel.
pub(super) const WORKERS: usize = 4;

/// State that all workers share.
pub(super) struct Audit {
    pub(super) args: Arc<VerifyArgs>,
    pub(super) config: ClientConfig,
    pub(super) bounds: BTreeMap<i32, Bounds>,
    /// Offsets held back by an open transaction.
    pub(super) waiting: BTreeMap<i32, Range<u64>>,
    pub(super) compacted: Option<bool>,
    pub(super) dead_letters: DeadLetters,
    /// What workers have found so far.
    replays: Mutex<Replays>,
    /// Partitions that no worker has read yet.
    unread: Mutex<VecDeque<i32>>,
    pub(super) progress: progress::Progress,
}

impl Audit {
    /// Reads the bounds of the partitions and the dead letters.
    pub(super) async fn open(args: VerifyArgs) -> anyhow::Result<Self> {
        let args = Arc::new(args);
        let config = topic_log::config(&args)?;
        let (shared, settings) = (args.clone(), config.clone());
        let TopicBounds { bounds, waiting } = blocking(move || topic_log::bounds(&settings, &shared)).await?;
        let (shared, settings) = (args.clone(), config.clone());
        let dead_letters = blocking(move || DeadLetters::read(&settings, &shared)).await?;
        let compacted = topic_log::is_compacted(&config, &args.kafka.topic).await;
        let unread = Mutex::new(bounds.keys().copied().collect());
        let replays = Mutex::default();
        let offsets = bounds.values().map(|bounds| {
            // Sums count the records after the committed offset, too.
            let end = if args.sum.is_some() { bounds.end } else { bounds.checkable().end };
            end.saturating_sub(bounds.start)
        });
        let progress = progress::Progress::new(format!("verifying {:?}", args.kafka.topic), offsets.sum());
        Ok(Self { args, config, bounds, waiting, compacted, dead_letters, replays, unread, progress })
    }

    /// Compares all partitions.
    pub(super) async fn run(self: Arc<Self>) -> anyhow::Result<Report> {
        let table = AuditedTable::open(&self.args).await?;
        let (knows_topics, table_rows) = (table.knows_topics(), table.held().await?);
        let volatile_engine = table.volatile_engine().map(str::to_owned);
        let ttl = table.ttl().map(str::to_owned);
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..WORKERS.min(self.bounds.len()) {
            let (audit, table_rows) = (self.clone(), table_rows.clone());
            workers.spawn(async move { audit.work(&table_rows).await });
        }
        let mut accounts = Vec::new();
        while let Some(done) = workers.join_next().await {
            accounts.extend(done.context("an audit worker")??);
        }
        accounts.sort_by_key(|account: &PartitionAccount| account.partition);
        let replays = self.take_replays();
        accounts.iter_mut().for_each(|account| account.settle(replays.of(account.partition)));
        let unknown = table_rows.iter().filter(|(partition, _)| {
            !i32::try_from(**partition).is_ok_and(|partition| self.bounds.contains_key(&partition))
        });
        Ok(Report {
            rows_of_unknown_partitions: unknown.map(|(partition, held)| (*partition, held.rows)).collect(),
            args: self.args.clone(),
            accounts,
            compacted: self.compacted,
            knows_topics,
            waiting: self.waiting.clone(),
            volatile_engine,
            ttl,
            repeated_dead_letters: self.dead_letters.repeated,
            nameless_dead_letters: self.dead_letters.nameless,
            replays: replays.count,
            repeated_replays: replays.repeated,
        })
    }

    /// What workers have found.
    pub(super) fn take_replays(&self) -> Replays {
        std::mem::take(&mut *self.replays.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds what a reader has found.
    pub(super) fn add_replays(&self, reader: &mut LogReader) {
        self.replays.lock().unwrap_or_else(PoisonError::into_inner).add(reader.take_replayed());
    }

    /// A partition that no worker has read yet.
    pub(super) fn next_partition(&self) -> Option<(i32, Bounds)> {
        let partition = self.unread.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
        self.bounds.get(&partition).map(|bounds| (partition, *bounds))
    }

    /// Reads partitions until all are read. `table_rows` holds the table's rows by partition.
    async fn work(&self, table_rows: &BTreeMap<i64, HeldRows>) -> anyhow::Result<Vec<PartitionAccount>> {
        let table = AuditedTable::open(&self.args).await?;
        let mut reader = LogReader::new(&self.config, &self.args)?;
        let mut accounts = Vec::new();
        while let Some((partition, bounds)) = self.next_partition() {
            let lowest_in_table = table_rows.get(&i64::from(partition)).map(|held| held.first);
            let (account, returned) =
                self.audit_partition(&table, reader, partition, bounds, lowest_in_table).await?;
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

    async fn audit_partition(
        &self,
        table: &AuditedTable<'_>,
        mut reader: LogReader,
        partition: i32,
        bounds: Bounds,
        lowest_in_table: Option<u64>,
    ) -> anyhow::Result<(PartitionAccount, LogReader)> {
        let mut account = PartitionAccount::new(partition, bounds, self.args.list);
        let checked = account.checked.clone();
        if let Some(lowest) = lowest_in_table.filter(|offset| *offset < checked.start) {
            self.rows_without_log(table, partition, lowest..checked.start, |rows| {
                account.count_below(rows);
            })
            .await?;
        }
        if !checked.is_empty() {
            reader.seek(partition, checked.start)?;
        }
        let mut at = checked.start;
        while at < checked.end {
            let compared = at..checked.end.min(at + self.args.offsets_at_a_time);
            let reading = read(reader, Bits::none_of(compared.clone()));
            let (read, rows) = tokio::join!(reading, table.rows(partition, compared.clone()));
            let (records, progress, returned) = read?;
            reader = returned;
            self.add_replays(&mut reader);
            match progress {
                Progress::Whole => {
                    let dead_letters = dead_letters_within(self.dead_letters.of(partition), &compared);
                    account.check(&records, &rows?, &dead_letters);
                    at = compared.end;
                }
                Progress::StartsAt(start) if start <= at => bail!(unreadable(partition, at, start)),
                Progress::StartsAt(start) => {
                    let deleted = at..start.min(checked.end);
                    account.deleted(&deleted);
                    self.rows_without_log(table, partition, deleted.clone(), |rows| {
                        account.count_below(rows);
                    })
                    .await?;
                    at = deleted.end;
                }
            }
            self.progress.advance(at - compared.start);
            tracing::info!(partition, offset = at, end = checked.end, "verified");
        }
        let beyond = checked.end..i64::MAX.cast_unsigned();
        self.rows_without_log(table, partition, beyond, |rows| account.count_beyond(rows)).await?;
        Ok((account, reader))
    }

    /// Reads the table's rows of offsets that are not compared with the log, range by range.
    /// Skips ranges without rows.
    async fn rows_without_log(
        &self,
        table: &AuditedTable<'_>,
        partition: i32,
        range: Range<u64>,
        mut for_each_range: impl FnMut(&Rows),
    ) -> anyhow::Result<()> {
        let mut at = range.start;
        while let Some(first) = table.next_offset(partition, at).await?.filter(|offset| *offset < range.end) {
            let compared = first..range.end.min(first.saturating_add(self.args.offsets_at_a_time));
            at = compared.end;
            for_each_range(&table.rows(partition, compared).await?);
        }
        Ok(())
    }
}

/// The error of a record that a broker has and does not return.
pub(super) fn unreadable(partition: i32, at: u64, start: u64) -> String {
    format!(
        "the broker does not return offset {at} of partition {partition}, although its log starts at {start}"
    )
}

/// Reads a range of the log on a thread that may block.
pub(super) async fn read(
    mut reader: LogReader,
    mut records: Bits,
) -> anyhow::Result<(Bits, Progress, LogReader)> {
    blocking(move || {
        let progress = reader.read(&mut records)?;
        Ok((records, progress, reader))
    })
    .await
}

/// Runs a call that may block.
pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    spawn_blocking(call).await.context("the thread that reads Kafka")?
}
