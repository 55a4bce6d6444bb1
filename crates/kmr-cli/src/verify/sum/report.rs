//! The report of `verify --sum`, as text and as JSON.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use comfy_table::Table;
use kmr_cli_support::numbers::grouped;
use kmr_cli_support::table;
use serde_json::{Value, json};

use super::super::args::VerifyArgs;
use super::super::commits;
use super::super::notes::{DeadLetterCounts, on_dead_letters, on_table};
use super::account::{Counts, SumAccount};
use super::table::{Facts, Sums};

/// The findings of an audit by a sum.
#[derive(Debug)]
pub(in super::super) struct SumReport {
    pub(super) args: Arc<VerifyArgs>,
    /// The summed column.
    pub(super) column: String,
    pub(super) accounts: BTreeMap<i32, SumAccount>,
    pub(super) sums: Sums,
    pub(super) facts: Facts,
    /// Offsets that no consumer can read before an open transaction ends, by partition.
    pub(super) waiting: BTreeMap<i32, Range<u64>>,
    pub(super) repeated_dead_letters: u64,
    pub(super) nameless_dead_letters: u64,
    /// Records that repeat a record that became a dead letter.
    pub(super) replays: u64,
}

/// How much the table counts too little and too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Difference {
    missing: i128,
    double: i128,
}

impl From<(i128, i128)> for Difference {
    fn from((missing, double): (i128, i128)) -> Self {
        Self { missing, double }
    }
}

impl SumReport {
    fn counts(&self) -> Counts {
        let mut all = Counts::default();
        self.accounts.values().for_each(|account| all += account.counts);
        all
    }

    /// The sum of a partition, if the table has the sums of partitions.
    fn sum_of(&self, partition: i32) -> Option<i128> {
        match &self.sums {
            Sums::ByPartition(sums) => Some(sums.get(&i64::from(partition)).copied().unwrap_or(0)),
            Sums::Whole { .. } => None,
        }
    }

    fn difference_of(&self, partition: i32, account: &SumAccount) -> Option<Difference> {
        self.sum_of(partition).map(|sum| account.counts.differ(sum).into())
    }

    fn sum(&self) -> i128 {
        match &self.sums {
            Sums::ByPartition(sums) => sums.values().sum(),
            Sums::Whole { sum, .. } => *sum,
        }
    }

    fn difference(&self) -> Difference {
        let Sums::ByPartition(_) = &self.sums else { return self.counts().differ(self.sum()).into() };
        let each = self.accounts.iter().filter_map(|(partition, a)| self.difference_of(*partition, a));
        each.fold(Difference::default(), |all, one| Difference {
            missing: all.missing + one.missing,
            double: all.double + one.double,
        })
    }

    /// The sums of partitions that the topic does not have.
    fn unknown(&self) -> BTreeMap<i64, i128> {
        let Sums::ByPartition(sums) = &self.sums else { return BTreeMap::new() };
        let is_known =
            |partition: i64| i32::try_from(partition).is_ok_and(|p| self.accounts.contains_key(&p));
        sums.iter().filter(|(partition, _)| !is_known(**partition)).map(|(p, sum)| (*p, *sum)).collect()
    }

    /// Whether there is no fault.
    pub(in super::super) fn passes(&self) -> bool {
        self.faults().is_empty()
    }

    /// The findings that fail the audit.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let Difference { missing, double } = self.difference();
        if missing > i128::from(self.args.allow_missing) {
            faults.push(format!("{} missing: neither in the sum nor dead letters", number(missing)));
        }
        if double > 0 {
            faults.push(format!("{} double: the sum counts more than there is", number(double)));
        }
        let unknown = self.unknown();
        if !unknown.is_empty() {
            let names: Vec<String> = unknown.keys().map(i64::to_string).collect();
            faults.push(format!("rows of partitions that the topic does not have: {}", names.join(", ")));
        }
        let bounds = self.accounts.iter().map(|(partition, account)| (*partition, account.bounds));
        faults.extend(commits::faults(&self.args, &bounds.collect::<Vec<_>>()));
        faults
    }

    /// Findings that are not faults.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (partition, SumAccount { counts, .. }) in &self.accounts {
            for (count, text) in [
                (counts.uncommitted, "records after the committed offset: the sum may have them"),
                (counts.gone, "offsets are no longer in the log: the sum may have their records"),
            ] {
                if count > 0 {
                    notes.push(format!("partition {partition}: {} {text}", grouped(count)));
                }
            }
        }
        if let Sums::Whole { reason, .. } = &self.sums {
            notes.push(format!("{reason}: only the sum of all partitions is compared"));
        }
        let missing = self.difference().missing;
        if missing > 0 && missing <= i128::from(self.args.allow_missing) {
            notes.push(format!("{} missing are allowed by --allow-missing", number(missing)));
        }
        if let Some(ttl) = self.facts.ttl.as_ref().filter(|_| missing > 0) {
            notes.push(format!("the table removes expired rows (TTL {ttl}): missing ones may have expired"));
        }
        notes.extend(on_table(&self.waiting, self.facts.volatile_engine.as_deref(), self.facts.knows_topics));
        let counts =
            DeadLetterCounts { repeated: self.repeated_dead_letters, nameless: self.nameless_dead_letters };
        let more =
            [(self.replays, "records are replays of dead letters: each counts as a record of its own")];
        notes.extend(on_dead_letters(counts, &more));
        notes
    }

    fn verdict(&self) -> String {
        let (counts, Difference { missing, double }) = (self.counts(), self.difference());
        let width = i128::from(counts.uncommitted) + i128::from(counts.gone);
        let limit = match (self.passes(), width) {
            (false, _) => "FAILED".to_owned(),
            (true, 0) => "PASSED".to_owned(),
            (true, width) => format!(
                "PASSED for sums in a range of {}, which hides differences of that size: see the notes",
                number(width)
            ),
        };
        format!(
            "{} records up to the committed offsets, {} dead letters, and {:?} counts {}: {} missing, {} double. {limit}",
            grouped(counts.records),
            grouped(counts.dead_letters),
            self.column,
            number(self.sum()),
            number(missing),
            number(double),
        )
    }

    /// For people.
    pub(in super::super) fn text(&self) -> String {
        let mut lines = vec![self.table().to_string()];
        for (partition, account) in &self.accounts {
            let Some(Difference { missing, double }) = self.difference_of(*partition, account) else {
                continue;
            };
            for (count, name) in [(missing, "missing"), (double, "double")] {
                if count > 0 {
                    lines.push(format!("partition {partition}: {} {name}", number(count)));
                }
            }
        }
        lines.extend(self.notes().into_iter().map(|note| format!("note: {note}")));
        lines.extend(self.faults().into_iter().map(|fault| format!("fault: {fault}")));
        lines.push(self.verdict());
        lines.join("\n")
    }

    fn table(&self) -> Table {
        let titles = ["partition", "records", "dead\nletters", "expected", "sum", "missing", "double"];
        let mut table = table::with_header(titles);
        for (partition, account) in &self.accounts {
            let (sum, difference) = (self.sum_of(*partition), self.difference_of(*partition, account));
            table.add_row(row(partition.to_string(), &account.counts, sum, difference));
        }
        table.add_row(row("all".to_owned(), &self.counts(), Some(self.sum()), Some(self.difference())));
        table
    }

    /// For programs.
    pub(in super::super) fn json(&self) -> Value {
        let partitions: Vec<Value> = self
            .accounts
            .iter()
            .map(|(partition, account)| {
                let SumAccount { bounds, counts, .. } = account;
                let sum = self.sum_of(*partition);
                let mut value = numbers(counts, sum, self.difference_of(*partition, account));
                value["partition"] = json!(partition);
                value["log_start"] = json!(bounds.start);
                value["log_end"] = json!(bounds.end);
                value["committed"] = json!(bounds.committed);
                value
            })
            .collect();
        let unknown: BTreeMap<String, Value> =
            self.unknown().into_iter().map(|(partition, sum)| (partition.to_string(), exact(sum))).collect();
        let mut value = numbers(&self.counts(), Some(self.sum()), Some(self.difference()));
        value["passed"] = json!(self.passes());
        value["topic"] = json!(self.args.kafka.topic);
        value["group"] = json!(self.args.group);
        value["table"] = json!(format!("{}.{}", self.args.clickhouse.database, self.args.clickhouse.table));
        value["column"] = json!(self.column);
        value["sums_of_unknown_partitions"] = json!(unknown);
        value["repeated_dead_letters"] = json!(self.repeated_dead_letters);
        value["nameless_dead_letters"] = json!(self.nameless_dead_letters);
        value["replays"] = json!(self.replays);
        value["partitions"] = json!(partitions);
        value["faults"] = json!(self.faults());
        value["notes"] = json!(self.notes());
        value
    }
}

fn row(
    name: String,
    counts: &Counts,
    sum: Option<i128>,
    difference: Option<Difference>,
) -> Vec<comfy_table::Cell> {
    let (least, greatest) = counts.expected();
    let expected = match least == greatest {
        true => number(least),
        false => format!("{}–{}", number(least), number(greatest)),
    };
    let optional = |value: Option<i128>| value.map_or_else(|| "–".to_owned(), number);
    table::texts([
        name,
        grouped(counts.records),
        grouped(counts.dead_letters),
        expected,
        optional(sum),
        optional(difference.map(|difference| difference.missing)),
        optional(difference.map(|difference| difference.double)),
    ])
}

fn numbers(counts: &Counts, sum: Option<i128>, difference: Option<Difference>) -> Value {
    let (least, greatest) = counts.expected();
    json!({
        "records": counts.records,
        "dead_letters": counts.dead_letters,
        "records_after_committed": counts.uncommitted,
        "offsets_gone_from_log": counts.gone,
        "expected_from": exact(least),
        "expected_to": exact(greatest),
        "sum": sum.map(exact),
        "missing": difference.map(|difference| exact(difference.missing)),
        "double": difference.map(|difference| exact(difference.double)),
    })
}

/// A number of JSON, or a text if it is too large for one.
fn exact(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| json!(number.to_string()), |number| json!(number))
}

fn number(number: i128) -> String {
    let sign = if number < 0 { "-" } else { "" };
    u64::try_from(number.unsigned_abs())
        .map_or_else(|_| number.to_string(), |digits| format!("{sign}{}", grouped(digits)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::super::partition_account::Bounds;
    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        verify: VerifyArgs,
    }

    fn account(records: u64, dead_letters: u64, uncommitted: u64) -> SumAccount {
        let bounds = Bounds { start: 0, end: records + uncommitted, committed: Some(records) };
        let mut account = SumAccount::new(bounds, Some(false));
        account.counts = Counts { records, dead_letters, uncommitted, gone: 0 };
        account
    }

    fn report(sums: Sums, flags: &[&str]) -> SumReport {
        let accounts = [(0, account(1_000, 0, 0)), (1, account(500, 20, 0))];
        SumReport {
            args: Arc::new(Flags::try_parse_from(["kmr"].iter().chain(flags)).unwrap().verify),
            column: "visits".to_owned(),
            accounts: accounts.into(),
            sums,
            facts: Facts { knows_topics: true, ..Facts::default() },
            waiting: BTreeMap::new(),
            repeated_dead_letters: 0,
            nameless_dead_letters: 0,
            replays: 0,
        }
    }

    fn by_partition(sums: &[(i64, i128)], flags: &[&str]) -> SumReport {
        report(Sums::ByPartition(sums.iter().copied().collect()), flags)
    }

    #[test]
    fn sums_that_differ_are_named_with_their_partition() {
        let right = by_partition(&[(0, 1_000), (1, 480)], &[]);
        let text = right.text();
        assert!(right.passes() && right.notes().is_empty(), "{text}");
        assert!(text.ends_with("\"visits\" counts 1,480: 0 missing, 0 double. PASSED"), "{text}");

        let text = by_partition(&[(0, 1_003), (1, 470)], &[]).text();
        for part in ["partition 0: 3 double", "partition 1: 10 missing", "10 missing, 3 double. FAILED"] {
            assert!(text.contains(part), "{text}");
        }
        // A partition without rows.
        assert!(by_partition(&[(0, 1_000)], &[]).text().contains("partition 1: 480 missing"));
        let unknown = by_partition(&[(0, 1_000), (1, 480), (-1, 0)], &[]);
        assert!(!unknown.passes() && unknown.text().contains("the topic does not have: -1"));

        let allowed = ["--allow-missing", "10"];
        assert!(by_partition(&[(0, 1_000), (1, 470)], &allowed).passes());
        assert!(!by_partition(&[(0, 1_000), (1, 469)], &allowed).passes());
    }

    #[test]
    fn a_table_without_partitions_is_compared_as_a_whole() {
        let whole = |sum| report(Sums::Whole { sum, reason: "the table has no column".to_owned() }, &[]);
        let text = whole(1_480).text();
        assert!(whole(1_480).passes() && text.contains("only the sum of all partitions"), "{text}");
        assert!(!whole(1_479).passes() && whole(1_481).text().contains("0 missing, 1 double. FAILED"));
    }

    #[test]
    fn a_pass_names_the_range_that_it_accepts() {
        let mut running = by_partition(&[(0, 1_000), (1, 485)], &[]);
        running.accounts.insert(1, account(500, 20, 1_200));
        let text = running.text();
        assert!(text.contains("480–1,680") && text.contains("PASSED for sums in a range of 1,200"), "{text}");
        assert!(text.contains("partition 1: 1,200 records after the committed offset"), "{text}");
        running.sums = Sums::ByPartition([(0, 1_000), (1, 479)].into());
        assert!(!running.passes());
    }

    #[test]
    fn json_has_the_findings_of_the_text() {
        let json = by_partition(&[(0, 1_000), (1, 470)], &[]).json();
        assert_eq!(
            (&json["passed"], &json["missing"], &json["sum"]),
            (&json!(false), &json!(10), &json!(1_470))
        );
        assert_eq!(json["partitions"][1]["expected_from"], 480);
        assert_eq!(
            (exact(i128::MAX).as_str().map(str::len), number(-1_234)),
            (Some(39), "-1,234".to_owned())
        );
    }
}
