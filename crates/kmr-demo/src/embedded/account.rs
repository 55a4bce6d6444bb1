//! The demo's account: compares produced and arrived messages, one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::Table;
use kmr_cli_support::numbers::{cpu_per_million, grouped, megabytes, per_second};
use kmr_cli_support::table;

use super::producer::Plan;
use super::tally::Arrivals;

/// One partition, or all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Line {
    produced: u64,
    in_sink: u64,
    missing: u64,
    double: u64,
    dead_letters: u64,
    mixed_up: u64,
    committed: u64,
}

/// The account of one run.
#[derive(Debug)]
pub(crate) struct Account {
    lines: BTreeMap<i32, Line>,
    total: Line,
}

impl Account {
    /// `produced`: acknowledged messages by partition. `committed`: the group's committed offsets.
    pub(crate) fn new(
        plan: &Plan,
        produced: &BTreeMap<i32, u64>,
        arrivals: &Arrivals,
        committed: &BTreeMap<i32, i64>,
    ) -> Self {
        let lines: BTreeMap<i32, Line> = produced
            .iter()
            .map(|(&partition, &produced)| {
                let committed = committed.get(&partition).copied().unwrap_or(0).unsigned_abs();
                (partition, line(plan, partition, produced, arrivals, committed))
            })
            .collect();
        let total = lines.values().fold(Line::default(), |a, b| Line {
            produced: a.produced + b.produced,
            in_sink: a.in_sink + b.in_sink,
            missing: a.missing + b.missing,
            double: a.double + b.double,
            dead_letters: a.dead_letters + b.dead_letters,
            mixed_up: a.mixed_up + b.mixed_up,
            committed: a.committed + b.committed,
        });
        Self { lines, total }
    }

    /// The findings that fail the run.
    pub(crate) fn problems(&self) -> Vec<String> {
        let Line { produced, missing, double, mixed_up, committed, .. } = self.total;
        let mut problems = Vec::new();
        for (count, problem) in [
            (missing, "missing: neither rows in the sink nor, if malformed, dead letters"),
            (double, "double"),
            (mixed_up, "delivered with the payload of another record"),
            (
                produced.abs_diff(committed),
                "off between the committed offsets and the ends of the partitions",
            ),
        ] {
            if count > 0 {
                problems.push(format!("{} records {problem}", grouped(count)));
            }
        }
        problems
    }

    /// A row for each partition, and the totals.
    pub(crate) fn table(&self) -> Table {
        let mut table = table::with_header([
            "partition",
            "produced",
            "in the sink",
            "missing",
            "double",
            "dead letters",
            "committed offset",
        ]);
        for (partition, line) in &self.lines {
            table.add_row(cells(partition.to_string(), line));
        }
        table.add_row(cells("all".to_owned(), &self.total));
        table
    }

    /// Speed and cost, in two lines.
    pub(crate) fn summary(&self, took: Duration, cpu: Option<Duration>, peak: Option<u64>) -> String {
        let produced = self.total.produced;
        let mut text = format!(
            "{} records in {:.2} s: {} records/s",
            grouped(produced),
            took.as_secs_f64(),
            grouped(per_second(produced, took))
        );
        if let Some(cpu) = cpu {
            text += &format!(", {:.2} CPU seconds per million", cpu_per_million(cpu, produced));
        }
        if let Some(peak) = peak {
            text += &format!(", peak memory {}", megabytes(peak));
        }
        text + "\n(producer, broker and consumer together: they share this process)"
    }
}

/// Accounts for each produced message: a well-formed one has to be a row in the sink, a malformed
/// one a dead letter.
fn line(plan: &Plan, partition: i32, produced: u64, arrivals: &Arrivals, committed: u64) -> Line {
    let Some(arrived) = arrivals.of(partition) else {
        return Line { produced, missing: produced, committed, ..Line::default() };
    };
    let absent = |id: &u64| {
        let place = if plan.is_malformed(partition, *id) { &arrived.dead_letters } else { &arrived.rows };
        place.of(*id) == 0
    };
    Line {
        produced,
        in_sink: arrived.rows.distinct(),
        missing: (0..produced).filter(absent).count() as u64,
        double: arrived.rows.surplus() + arrived.dead_letters.surplus(),
        dead_letters: arrived.dead_letters.distinct(),
        mixed_up: arrived.mixed_up,
        committed,
    }
}

fn cells(name: String, line: &Line) -> Vec<comfy_table::Cell> {
    let numbers = [line.produced, line.in_sink, line.missing, line.double, line.dead_letters, line.committed];
    table::numbers(name, numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_accounted_for() {
        // All are malformed, so a dead letter is not missing.
        let plan = Plan::new(3, 1, 1.0);
        let arrivals = Arrivals::new(1);
        arrivals.add_dead_letter(0, 0).unwrap();
        arrivals.add_dead_letter(0, 2).unwrap();
        arrivals.add_dead_letter(0, 2).unwrap();
        let account = Account::new(&plan, &[(0, 3)].into(), &arrivals, &[(0, 3)].into());
        let expected =
            Line { produced: 3, missing: 1, double: 1, dead_letters: 2, committed: 3, ..Line::default() };
        assert_eq!(account.total, expected);
        assert_eq!(account.problems().len(), 2, "{:?}", account.problems());
    }

    #[test]
    fn a_well_formed_message_that_became_a_dead_letter_is_missing() {
        let arrivals = Arrivals::new(1);
        arrivals.add_dead_letter(0, 0).unwrap();
        let account = Account::new(&Plan::new(1, 1, 0.0), &[(0, 1)].into(), &arrivals, &[(0, 1)].into());
        assert_eq!((account.total.missing, account.total.dead_letters), (1, 1));
    }

    #[test]
    fn a_commit_that_lags_is_a_problem() {
        let account =
            Account::new(&Plan::new(0, 1, 0.0), &[(0, 0)].into(), &Arrivals::new(1), &[(0, 2)].into());
        assert!(account.problems()[0].contains("committed"), "{:?}", account.problems());
    }
}
