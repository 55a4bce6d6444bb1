//! `verify --sum`: the audit of a table of folded rows, by the conservation of a count.
//!
//! 1. The order of reading is that of the other audit: committed offsets, dead letters, table. So
//!    every committed record is counted by a row or is a dead letter by then.
//! 2. A row of a fold has no offset of its own. So nothing shows which rows belong to records after
//!    the committed offset: the sum has to lie in a range, and the report names its width.
//! 3. The ends of the log are read again after the table. A row of a record after those ends cannot
//!    be in the sum.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};

mod account;
mod report;
mod table;

use account::SumAccount;
pub(super) use report::SumReport;
use table::SummedTable;

use super::audit::{Audit, WORKERS, blocking, read, unreadable};
use super::offset_sets::Bits;
use super::partition_account::{Bounds, dead_letters_within};
use super::topic_log::{self, LogReader, Progress};

impl Audit {
    /// Compares the sum of `column` with the records.
    pub(super) async fn run_sum(self: Arc<Self>, column: &str) -> anyhow::Result<SumReport> {
        let table = SummedTable::open(&self.args, column).await?;
        let sums = table.sums().await?;
        let (shared, config) = (self.args.clone(), self.config.clone());
        let ends = blocking(move || topic_log::bounds(&config, &shared)).await?.bounds;
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..WORKERS.min(self.bounds.len()) {
            let audit = self.clone();
            workers.spawn(async move { audit.count_records().await });
        }
        let mut accounts = BTreeMap::new();
        while let Some(done) = workers.join_next().await {
            accounts.extend(done.context("an audit worker")??);
        }
        let replays = self.take_replays();
        for (partition, account) in &mut accounts {
            account.settle(self.dead_letters.of(*partition), replays.of(*partition));
            account.grow(ends.get(partition).map_or(0, |bounds| bounds.end));
        }
        Ok(SumReport {
            args: self.args.clone(),
            column: column.to_owned(),
            accounts,
            sums,
            facts: table.into_facts(),
            waiting: self.waiting.clone(),
            repeated_dead_letters: self.dead_letters.repeated,
            nameless_dead_letters: self.dead_letters.nameless,
            replays: replays.count,
        })
    }

    /// Counts the records of partitions until all are read.
    async fn count_records(&self) -> anyhow::Result<Vec<(i32, SumAccount)>> {
        let mut reader = LogReader::new(&self.config, &self.args)?;
        let mut accounts = Vec::new();
        while let Some((partition, bounds)) = self.next_partition() {
            let account;
            (account, reader) = self.count_partition(reader, partition, bounds).await?;
            accounts.push((partition, account));
        }
        // Closing a consumer blocks.
        blocking(move || {
            drop(reader);
            Ok(accounts)
        })
        .await
    }

    async fn count_partition(
        &self,
        mut reader: LogReader,
        partition: i32,
        bounds: Bounds,
    ) -> anyhow::Result<(SumAccount, LogReader)> {
        let mut account = SumAccount::new(bounds, self.compacted);
        let committed = bounds.checkable().end;
        if bounds.start < bounds.end {
            reader.seek(partition, bounds.start)?;
        }
        let mut at = bounds.start;
        while at < bounds.end {
            // No window has records before and after the committed offset.
            let limit = if at < committed { committed } else { bounds.end };
            let window = at..limit.min(at.saturating_add(self.args.offsets_at_a_time));
            let (records, progress, returned) = read(reader, Bits::none_of(window.clone())).await?;
            reader = returned;
            self.add_replays(&mut reader);
            let before = at;
            at = match progress {
                Progress::Whole => {
                    let dead = dead_letters_within(self.dead_letters.of(partition), &window);
                    account.count(&records, &dead);
                    window.end
                }
                Progress::StartsAt(start) if start <= at => bail!(unreadable(partition, at, start)),
                Progress::StartsAt(start) => {
                    let start = start.min(bounds.end);
                    account.deleted(&(at..start), self.dead_letters.of(partition));
                    start
                }
            };
            self.progress.advance(at - before);
            tracing::info!(partition, offset = at, end = bounds.end, "counted");
        }
        Ok((account, reader))
    }
}
