//! The report of an audit: table, listings, notes, faults and verdict, as text and as JSON.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use comfy_table::Table;
use kmr_cli_support::numbers::grouped;
use kmr_cli_support::table;
use serde_json::{Value, json};

use super::args::VerifyArgs;
use super::commits;
use super::notes::{DeadLetterCounts, on_dead_letters, on_table};
use super::offset_sets::Listing;
use super::partition_account::PartitionAccount;

/// The findings of an audit.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) args: Arc<VerifyArgs>,
    pub(super) accounts: Vec<PartitionAccount>,
    /// Whether compaction may remove single records of the topic; `None` if unknown.
    pub(super) compacted: Option<bool>,
    /// Rows of partitions that the topic does not have, by partition.
    pub(super) rows_of_unknown_partitions: BTreeMap<i64, u64>,
    /// Whether rows of other topics were left out.
    pub(super) knows_topics: bool,
    /// Offsets that no consumer can read before an open transaction ends, by partition.
    pub(super) waiting: BTreeMap<i32, Range<u64>>,
    /// The table's engine, if a kill of the server loses its rows.
    pub(super) volatile_engine: Option<String>,
    /// The table's TTL that removes rows.
    pub(super) ttl: Option<String>,
    pub(super) repeated_dead_letters: u64,
    pub(super) nameless_dead_letters: u64,
    /// Records that repeat a record that became a dead letter.
    pub(super) replays: u64,
    /// Those whose record had been repeated before.
    pub(super) repeated_replays: u64,
}

/// The sums over all partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    records: u64,
    rows: u64,
    dead_letters: u64,
    gaps: u64,
    missing: u64,
    surplus: u64,
    both: u64,
    unfounded: u64,
}

impl Report {
    fn sums(&self) -> Sums {
        self.accounts.iter().fold(Sums::default(), |sums, account| Sums {
            records: sums.records + account.records,
            rows: sums.rows + account.rows,
            dead_letters: sums.dead_letters + account.dead_letters,
            gaps: sums.gaps + account.gaps,
            missing: sums.missing + account.missing.count,
            surplus: sums.surplus + account.surplus,
            both: sums.both + account.both.count,
            unfounded: sums.unfounded + account.unfounded.count,
        })
    }

    /// Whether there is no fault.
    pub(super) fn passes(&self) -> bool {
        self.faults().is_empty()
    }

    /// The findings that fail the audit.
    fn faults(&self) -> Vec<String> {
        let Sums { missing, surplus, both, unfounded, .. } = self.sums();
        let mut faults = Vec::new();
        let mut add = |count: u64, allowed: u64, fault: &str| {
            if count > allowed {
                faults.push(format!("{} {fault}", grouped(count)));
            }
        };
        add(missing, self.args.allow_missing, "missing: neither in the table nor a dead letter");
        add(surplus, 0, "double: rows beyond the first of their offset");
        add(both, 0, "double: in the table and a dead letter");
        // Compaction may have removed the records of correct rows.
        let certain = if self.compacted == Some(false) { unfounded } else { 0 };
        add(certain, 0, "rows without a record: of aborted transactions, or of another topic");
        add(
            self.rows_of_unknown_partitions.values().sum(),
            0,
            "rows of partitions that the topic does not have",
        );
        let bounds: Vec<_> =
            self.accounts.iter().map(|account| (account.partition, account.bounds)).collect();
        faults.extend(commits::faults(&self.args, &bounds));
        faults
    }

    /// Findings that are not faults.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for account in &self.accounts {
            notes.extend(notes_on(account));
        }
        let Sums { missing, unfounded, .. } = self.sums();
        if missing > 0 && missing <= self.args.allow_missing {
            notes.push(format!("{} missing are allowed by --allow-missing", grouped(missing)));
        }
        if let Some(ttl) = self.ttl.as_ref().filter(|_| missing > 0) {
            notes.push(format!(
                "the table removes expired rows, also while they are inserted (TTL {ttl}): missing ones may have expired"
            ));
        }
        if unfounded > 0 && self.compacted != Some(false) {
            notes.push(format!(
                "{} rows without a record: the topic is compacted, or may be",
                grouped(unfounded)
            ));
        }
        notes.extend(on_table(&self.waiting, self.volatile_engine.as_deref(), self.knows_topics));
        let counts =
            DeadLetterCounts { repeated: self.repeated_dead_letters, nameless: self.nameless_dead_letters };
        let more = [
            (
                self.replays,
                "records are replays of dead letters: each needs a row or a dead letter of its own",
            ),
            (self.repeated_replays, "replays of a record that had been replayed: its rows may be double"),
        ];
        notes.extend(on_dead_letters(counts, &more));
        notes
    }

    fn verdict(&self) -> String {
        let Sums { records, missing, surplus, both, .. } = self.sums();
        let waiting: u64 = self.waiting.values().map(|waiting| waiting.end - waiting.start).sum();
        let limit = match (waiting, &self.volatile_engine) {
            _ if !self.passes() => String::new(),
            (0, None) => String::new(),
            (0, Some(_)) => " for rows that may be in memory only".to_owned(),
            (waiting, None) => {
                format!(" without {} offsets held back by an open transaction", grouped(waiting))
            }
            (waiting, Some(_)) => format!(
                " for rows that may be in memory only, without {} offsets held back by an open transaction",
                grouped(waiting)
            ),
        };
        format!(
            "{} records up to the committed offsets: {} missing, {} double. {}{limit}",
            grouped(records),
            grouped(missing),
            grouped(surplus + both),
            if self.passes() { "PASSED" } else { "FAILED" }
        )
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut lines = vec![self.table().to_string()];
        for account in &self.accounts {
            for (name, listing) in lists(account) {
                if listing.count > 0 {
                    lines.push(format!("partition {}: {name}: {}", account.partition, listing.text()));
                }
            }
        }
        lines.extend(self.notes().into_iter().map(|note| format!("note: {note}")));
        lines.extend(self.faults().into_iter().map(|fault| format!("fault: {fault}")));
        lines.push(self.verdict());
        lines.join("\n")
    }

    fn table(&self) -> Table {
        let mut table = table::with_header([
            "partition",
            "records",
            "rows",
            "dead\nletters",
            "no\nrecord",
            "missing",
            "double",
        ]);
        for account in &self.accounts {
            let numbers = [
                account.records,
                account.rows,
                account.dead_letters,
                account.gaps,
                account.missing.count,
                account.surplus + account.both.count,
            ];
            table.add_row(table::numbers(account.partition.to_string(), numbers));
        }
        let Sums { records, rows, dead_letters, gaps, missing, surplus, both, .. } = self.sums();
        let sums = [records, rows, dead_letters, gaps, missing, surplus + both];
        table.add_row(table::numbers("all".to_owned(), sums));
        table
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let Sums { records, rows, dead_letters, gaps, missing, surplus, both, unfounded } = self.sums();
        let unknown_partitions: BTreeMap<String, u64> = self
            .rows_of_unknown_partitions
            .iter()
            .map(|(partition, rows)| (partition.to_string(), *rows))
            .collect();
        json!({
            "passed": self.passes(),
            "topic": self.args.kafka.topic,
            "group": self.args.group,
            "table": format!("{}.{}", self.args.clickhouse.database, self.args.clickhouse.table),
            "records": records,
            "rows": rows,
            "dead_letters": dead_letters,
            "gaps": gaps,
            "missing": missing,
            "double_rows": surplus,
            "in_table_and_dead_letters": both,
            "rows_without_record": unfounded,
            "rows_of_unknown_partitions": unknown_partitions,
            "held_back_by_transactions": self
                .waiting
                .iter()
                .map(|(partition, waiting)| (partition.to_string(), [waiting.start, waiting.end]))
                .collect::<BTreeMap<_, _>>(),
            "rows_may_be_in_memory_only": self.volatile_engine.is_some(),
            "repeated_dead_letters": self.repeated_dead_letters,
            "nameless_dead_letters": self.nameless_dead_letters,
            "replays": self.replays,
            "repeated_replays": self.repeated_replays,
            "partitions": self.accounts.iter().map(partition_json).collect::<Vec<_>>(),
            "faults": self.faults(),
            "notes": self.notes(),
        })
    }
}

fn lists(account: &PartitionAccount) -> [(&'static str, &Listing); 4] {
    [
        ("missing", &account.missing),
        ("double", &account.double),
        ("in the table and a dead letter", &account.both),
        ("rows without a record", &account.unfounded),
    ]
}

fn notes_on(account: &PartitionAccount) -> Vec<String> {
    let (name, bounds) = (account.partition, account.bounds);
    let mut notes = Vec::new();
    let mut add = |text: String| notes.push(format!("partition {name}: {text}"));
    match bounds.committed {
        None if bounds.start < bounds.end => {
            add("nothing is committed, so nothing can be checked".to_owned());
        }
        Some(committed) if committed < bounds.start => add(format!(
            "not checkable: {committed} is committed, and retention has deleted everything below {}",
            bounds.start
        )),
        _ => {}
    }
    let start = account.checked.start;
    if account.rows_below > 0 {
        add(format!(
            "not checkable: offsets below {start} are no longer in the log; the table has {} rows there",
            grouped(account.rows_below)
        ));
    } else if start > 0 && bounds.committed.is_some_and(|committed| committed >= start) {
        add(format!("not checkable: offsets below {start} are no longer in the log"));
    }
    if account.deleted > 0 {
        add(format!(
            "not checkable: retention deleted {} offsets during the audit",
            grouped(account.deleted)
        ));
    }
    if account.replayed > 0 {
        add(format!(
            "{} records without a row or a dead letter are accounted for by their replays",
            grouped(account.replayed)
        ));
    }
    if account.rows_beyond > 0 {
        add(format!(
            "{} rows after the committed offset: not committed yet, no fault",
            grouped(account.rows_beyond)
        ));
    }
    notes
}

fn partition_json(account: &PartitionAccount) -> Value {
    let listing = |listing: &Listing| json!({ "count": listing.count, "first": listing.runs });
    json!({
        "partition": account.partition,
        "log_start": account.bounds.start,
        "log_end": account.bounds.end,
        "committed": account.bounds.committed,
        "checked_from": account.checked.start,
        "checked_to": account.checked.end,
        "taken_by_retention": account.deleted,
        "records": account.records,
        "gaps": account.gaps,
        "rows": account.rows,
        "rows_below": account.rows_below,
        "rows_beyond_committed": account.rows_beyond,
        "dead_letters": account.dead_letters,
        "accounted_by_replays": account.replayed,
        "missing": listing(&account.missing),
        "double": listing(&account.double),
        "double_rows": account.surplus,
        "in_table_and_dead_letters": listing(&account.both),
        "rows_without_record": listing(&account.unfounded),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::offset_sets::Bits;
    use super::super::partition_account::{Bounds, Rows};
    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        verify: VerifyArgs,
    }

    fn report(bounds: Bounds, rows: &[u64], flags: &[&str]) -> Report {
        let mut account = PartitionAccount::new(3, bounds, 2);
        let window = account.checked.clone();
        let (mut records, mut table) = (Bits::none_of(window.clone()), Rows::none_of(window.clone()));
        records.add(window.clone().filter(|offset| offset % 10 != 9));
        rows.iter().for_each(|offset| table.add(*offset));
        account.check(&records, &table, &Bits::none_of(window));
        account.settle(None);
        Report {
            args: Arc::new(Flags::try_parse_from(["kmr"].iter().chain(flags)).unwrap().verify),
            accounts: vec![account],
            compacted: Some(false),
            rows_of_unknown_partitions: BTreeMap::new(),
            knows_topics: true,
            waiting: BTreeMap::new(),
            volatile_engine: None,
            ttl: None,
            repeated_dead_letters: 0,
            nameless_dead_letters: 0,
            replays: 0,
            repeated_replays: 0,
        }
    }

    const WHOLE: Bounds = Bounds { start: 0, end: 10, committed: Some(10) };

    #[test]
    fn an_audit_passes_only_without_a_fault() {
        let all: Vec<u64> = (0..9).collect();
        let clean = report(WHOLE, &all, &[]);
        assert!(clean.passes() && clean.notes().is_empty(), "{}", clean.text());
        assert!(clean.text().contains("9 records up to the committed offsets: 0 missing, 0 double. PASSED"));

        let missing = report(WHOLE, &all[2..], &[]);
        assert!(
            !missing.passes() && missing.text().contains("partition 3: missing: 0–1"),
            "{}",
            missing.text()
        );
        let allowed = report(WHOLE, &all[2..], &["--allow-missing", "2"]);
        assert!(allowed.passes() && allowed.text().contains("2 missing are allowed"), "{}", allowed.text());
        let double = report(WHOLE, &[&all[..], &[4]].concat(), &[]);
        assert!(!double.passes() && double.text().contains("double: 4"), "{}", double.text());

        let mut unfounded = report(WHOLE, &(0..10).collect::<Vec<_>>(), &[]);
        assert!(!unfounded.passes() && unfounded.text().contains("rows without a record: 9"));
        unfounded.compacted = None;
        assert!(unfounded.passes() && unfounded.text().contains("may be"), "{}", unfounded.text());
        let mut unknown_partition = report(WHOLE, &all, &[]);
        unknown_partition.rows_of_unknown_partitions.insert(-1, 5);
        assert!(!unknown_partition.passes());
    }

    #[test]
    fn a_pass_names_what_it_does_not_cover() {
        let all: Vec<u64> = (0..9).collect();
        let mut open = report(WHOLE, &all, &[]);
        open.waiting.insert(3, Range { start: 10, end: 1_020 });
        let text = open.text();
        assert!(
            open.passes() && text.contains("partition 3: 1,010 offsets from 10 on are held back"),
            "{text}"
        );
        assert!(text.ends_with("PASSED without 1,010 offsets held back by an open transaction"), "{text}");
        assert_eq!(open.json()["held_back_by_transactions"]["3"], json!([10, 1_020]));

        let mut buffered = report(WHOLE, &all, &[]);
        buffered.volatile_engine = Some("Buffer".to_owned());
        let text = buffered.text();
        assert!(text.contains("engine Buffer: its rows may be in memory only"), "{text}");
        assert!(text.ends_with("PASSED for rows that may be in memory only"), "{text}");
        assert_eq!(buffered.json()["rows_may_be_in_memory_only"], true);
    }

    #[test]
    fn replays_are_named() {
        let all: Vec<u64> = (0..9).collect();
        let mut replayed = Report { replays: 3, repeated_replays: 1, ..report(WHOLE, &all, &[]) };
        replayed.accounts[0].replayed = 2;
        let text = replayed.text();
        assert!(replayed.passes() && text.contains("3 records are replays of dead letters"), "{text}");
        assert!(
            text.contains("partition 3: 2 records without a row or a dead letter are accounted"),
            "{text}"
        );
        assert!(text.contains("1 replays of a record that had been replayed"), "{text}");
        assert_eq!(
            (&replayed.json()["replays"], &replayed.json()["repeated_replays"]),
            (&json!(3), &json!(1))
        );
    }

    #[test]
    fn a_ttl_is_named_when_rows_are_missing() {
        let ttl = Some("ts + toIntervalDay(1)".to_owned());
        let expired = Report { ttl: ttl.clone(), ..report(WHOLE, &[0, 1], &[]) };
        let text = expired.text();
        assert!(!expired.passes() && text.contains("(TTL ts + toIntervalDay(1)): missing"), "{text}");
        let all: Vec<u64> = (0..9).collect();
        assert!(!Report { ttl, ..report(WHOLE, &all, &[]) }.text().contains("TTL"));
    }

    #[test]
    fn uncheckable_offsets_are_named() {
        let report_of = |start, end, committed| report(Bounds { start, end, committed }, &[], &[]);
        let nothing = report_of(0, 9, None);
        assert!(!nothing.passes() && nothing.text().contains("is --group right?"), "{}", nothing.text());
        let retained_past_commit = report_of(50, 90, Some(20));
        assert!(
            retained_past_commit.passes() && retained_past_commit.text().contains("everything below 50"),
            "{}",
            retained_past_commit.text()
        );
        let beyond = report_of(0, 0, Some(20));
        assert!(!beyond.passes() && beyond.text().contains("20 is committed"), "{}", beyond.text());
        let mut retained = report_of(20, 20, Some(20));
        assert!(retained.text().contains("offsets below 20 are no longer in the log"), "{}", retained.text());
        retained.accounts[0].rows_below = 7;
        assert!(retained.passes() && retained.text().contains("the table has 7 rows there"));
    }

    #[test]
    fn json_has_the_findings_of_the_text() {
        let json = report(WHOLE, &[0, 0, 4], &[]).json();
        assert_eq!((json["passed"].as_bool(), json["missing"].as_u64()), (Some(false), Some(7)));
        assert_eq!(json["partitions"][0]["missing"]["first"], json!([[1, 3], [5, 8]]));
        assert_eq!(json["partitions"][0]["double"], json!({ "count": 1, "first": [[0, 0]] }));
    }
}
