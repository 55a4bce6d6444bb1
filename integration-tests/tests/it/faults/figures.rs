//! What a row reports, and when it has failed.

use std::fmt;
use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use integration_tests::say;

use super::group::Protocol;

/// Names a file to which each row adds its line; `cargo xtask` makes a table of it.
const FILE: &str = "KMR_FIGURES";

/// The figures of one row.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) row: String,
    /// Records that were produced, and had to arrive.
    pub(crate) records: u64,
    /// Members that came or went, brokers that restarted, topics that changed.
    pub(crate) changes: usize,
    /// Rebalances that members answered, each assign and each revoke for itself.
    pub(crate) rebalances: u64,
    pub(crate) missing: u64,
    /// Rows beyond the first of a record.
    pub(crate) double: u64,
    /// Longest time, in milliseconds, in which nothing was mapped of a partition that kept its owner: for each change and
    /// each such partition.
    pub(crate) pauses: Vec<i64>,
    /// What a reader should know: stalls of librdkafka, the seed.
    pub(crate) notes: Vec<String>,
    /// What the members have said, where rows are double.
    pub(crate) said: String,
}

impl Figures {
    /// The name of a row that runs in several protocols.
    pub(crate) fn row(name: &str, protocol: Protocol) -> String {
        format!("{name}, {protocol}")
    }

    /// Says the figures and fails when a record is missing.
    pub(crate) fn report(&self) -> Result<()> {
        say(format_args!("fault {self}"));
        if let Some(path) = std::env::var_os(FILE).filter(|path| !path.is_empty()) {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
            // One write, so that lines of parallel tests do not mix.
            let written = file.and_then(|mut file| file.write_all(format!("{self}\n").as_bytes()));
            written.with_context(|| format!("writing figures to {}", path.display()))?;
        }
        ensure!(self.missing == 0, "{} of {} records are missing: {self}", self.missing, self.records);
        Ok(())
    }

    /// The same, and fails when a row is double.
    pub(crate) fn report_exact(&self) -> Result<()> {
        self.report()?;
        ensure!(self.double == 0, "{} rows are double: {self}\n{}", self.double, self.said);
        Ok(())
    }
}

/// `name=value` for each figure, with tabs between: for readers and for programs.
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

/// `-` where nothing was measured.
fn median_and_longest(pauses: &[i64]) -> (String, String) {
    let mut sorted = pauses.to_vec();
    sorted.sort_unstable();
    let text = |pause: Option<&i64>| pause.map_or_else(|| "-".to_owned(), i64::to_string);
    (text(sorted.get(sorted.len() / 2)), text(sorted.last()))
}
