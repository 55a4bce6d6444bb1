//! The figures of a row, and the condition for its failure.

use std::fmt;
use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use integration_tests::log_line;

use super::protocol::Protocol;

/// Names a file to which each row appends a line. `cargo xtask` prints it as a table.
const FILE: &str = "KMR_FIGURES";

/// The figures of one row.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) row: String,
    /// Produced records.
    pub(crate) records: u64,
    /// Joins and leaves of members, broker restarts, changes of topics.
    pub(crate) changes: usize,
    /// Rebalances that members answered. Each assign and each revoke counts.
    pub(crate) rebalances: u64,
    pub(crate) missing: u64,
    /// Rows beyond the first of a record.
    pub(crate) double: u64,
    /// For each change and each partition that kept its owner: the longest time without a mapped
    /// record, in milliseconds.
    pub(crate) pauses: Vec<i64>,
    /// Remarks for the reader: stalls of librdkafka, the seed.
    pub(crate) notes: Vec<String>,
    /// The members' logs, if rows are duplicates.
    pub(crate) logs: String,
}

impl Figures {
    /// The name of a row that runs in several protocols.
    pub(crate) fn row(name: &str, protocol: Protocol) -> String {
        format!("{name}, {protocol}")
    }

    /// Prints the figures. Fails when a record is missing.
    pub(crate) fn report(&self) -> Result<()> {
        log_line(format_args!("fault {self}"));
        if let Some(path) = std::env::var_os(FILE).filter(|path| !path.is_empty()) {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
            // One write keeps lines of parallel tests apart.
            let written = file.and_then(|mut file| file.write_all(format!("{self}\n").as_bytes()));
            written.with_context(|| format!("writing figures to {}", path.display()))?;
        }
        ensure!(self.missing == 0, "{} of {} records are missing: {self}", self.missing, self.records);
        Ok(())
    }

    /// As [`Figures::report`], and fails when a row is a duplicate.
    pub(crate) fn report_exact(&self) -> Result<()> {
        self.report()?;
        ensure!(self.double == 0, "{} rows are duplicates: {self}\n{}", self.double, self.logs);
        Ok(())
    }
}

/// `name=value` for each figure, separated by tabs, for readers and programs.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, records, changes, rebalances, missing, double, .. } = self;
        let (median, longest) = median_and_longest(&self.pauses);
        write!(
            f,
            "row={row}\trecords={records}\tchanges={changes}\trebalances={rebalances}\tmissing={missing}\tdouble={double}\t\
             pauses={}\tpause median ms={median}\tpause max ms={longest}\tnotes={}",
            self.pauses.len(),
            self.notes.join("; ")
        )
    }
}

/// `-` without a measurement.
fn median_and_longest(pauses: &[i64]) -> (String, String) {
    let mut sorted = pauses.to_vec();
    sorted.sort_unstable();
    let text = |pause: Option<&i64>| pause.map_or_else(|| "-".to_owned(), i64::to_string);
    (text(sorted.get(sorted.len() / 2)), text(sorted.last()))
}
