//! Generates the tables of docs/clickhouse-errors.md, and compares the page with them.

use std::fmt::Write as _;

use super::list::{GROUPS, Group, Kind};
use super::place::tests::PLACES;
use super::{ErrorClass, classify};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/clickhouse-errors.md");
const START: &str = "<!-- Generated from crates/kmr-sinks/src/clickhouse/error_code/list.rs: start -->\n";
const END: &str = "<!-- Generated: end -->";
/// Set to write the page instead of comparing it.
const WRITE: &str = "KMR_WRITE_DOCS";

/// Places with the same classes, by one of [`PLACES`].
const COLUMNS: [(&str, &str); 6] = [
    ("no place named", "another place"),
    ("header", "the header of the body"),
    ("row, function, constraint", "a computed column, constraint, key or index"),
    ("view", "a view"),
    ("shard", "a shard"),
    ("lost shard", "the connection to a shard"),
];

fn class(code: u32, place: &str) -> ErrorClass {
    let (_, suffix, _) = PLACES.iter().find(|(what, ..)| *what == place).unwrap();
    classify(code, &format!("text{suffix}. (NAME) (version 26.7.2.1)")).0
}

fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Row => "a value of a row",
        Kind::Truncated => "truncated input",
        Kind::Schema => "changed columns",
        Kind::Rejected => "temporary, before the write",
        Kind::Memory => "memory",
        Kind::Parts => "too many parts",
        Kind::Partitions => "too many table partitions",
        Kind::Doubt => "temporary, at any time",
        Kind::Denied => "denied",
        Kind::Statement => "statement or setting",
    }
}

fn matrix() -> String {
    let mut text = String::from("| codes |");
    for (title, _) in COLUMNS {
        write!(text, " {title} |").unwrap();
    }
    text.push_str("\n|---|---|---|---|---|---|---|\n");
    let mut kinds: Vec<Kind> = GROUPS.iter().map(|group| group.kind).collect();
    kinds.dedup();
    for kind in kinds {
        let Group { codes, .. } = GROUPS.iter().find(|group| group.kind == kind).unwrap();
        write!(text, "| {} |", title(kind)).unwrap();
        for (_, place) in COLUMNS {
            write!(text, " {:?} |", class(codes[0].0, place)).unwrap();
        }
        text.push('\n');
    }
    text.push_str("| any other code |");
    for (_, place) in COLUMNS {
        write!(text, " {:?} |", class(4711, place)).unwrap();
    }
    text.push('\n');
    text
}

fn codes() -> String {
    let mut text = String::from("| codes | meaning | remedy | number and name |\n|---|---|---|---|\n");
    for Group { kind, about, remedy, codes } in GROUPS {
        let names: Vec<_> = codes.iter().map(|(code, name)| format!("{code} `{name}`")).collect();
        writeln!(text, "| {} | {about} | {remedy} | {} |", title(*kind), names.join(", ")).unwrap();
    }
    text
}

#[test]
fn all_codes_of_a_kind_have_the_same_class_in_the_same_place() {
    for group in GROUPS {
        for (code, name) in group.codes {
            for (_, place) in COLUMNS {
                let first = GROUPS.iter().find(|other| other.kind == group.kind).unwrap().codes[0].0;
                // A violated constraint is one wherever it is raised.
                let is_same = class(*code, place) == class(first, place) || *code == 469;
                assert!(is_same, "{code} {name} in {place}");
            }
        }
    }
}

#[test]
fn the_page_of_error_codes_is_generated_from_the_list() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(START).expect("the page has the generated tables");
    let (_, after) = rest.split_once(END).expect("the generated tables have an end");
    let expected = format!("{before}{START}\n{}\n{}\n{END}{after}", matrix(), codes());
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(PAGE, &expected).unwrap();
        return;
    }
    assert!(page == expected, "docs/clickhouse-errors.md is out of date: run this test with {WRITE}=1");
}
