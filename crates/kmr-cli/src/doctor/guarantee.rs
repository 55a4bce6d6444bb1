//! The delivery guarantee that follows from the facts, and the reasons for its limits. Pure.

use serde_json::{Value, json};

use super::check::{Check, State};
use super::facts::{Facts, TableFacts};

/// The delivery guarantee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guarantee {
    /// Checks that prevent any guarantee.
    blocked: Vec<&'static str>,
    /// Reasons why a repeated insert may double rows; empty if it cannot.
    doubles: Vec<String>,
}

impl Guarantee {
    pub(super) fn of(facts: &Facts, checks: &[Check]) -> Self {
        let failed = checks.iter().filter(|check| check.state == State::Fail).map(|check| check.name);
        let mut doubles = Vec::new();
        match &facts.clickhouse.tables {
            Ok(tables) if !tables.is_empty() => doubles.extend(tables.iter().filter_map(without_window)),
            _ => doubles.push("the table could not be read".to_owned()),
        }
        if facts.clickhouse.deduplicates == Some(false) {
            doubles.push("insert_deduplicate is 0 for this user".to_owned());
        }
        Self { blocked: failed.collect(), doubles }
    }

    /// Whether all tables recognise a repeated insert, down to the last view's.
    fn is_exact(&self) -> bool {
        self.doubles.is_empty()
    }

    pub(super) fn text(&self) -> String {
        let mut lines = Vec::new();
        match self.blocked[..] {
            [] => lines.push("guarantee: at least once: no record is lost or skipped silently".to_owned()),
            _ => lines.push(format!("guarantee: none until these checks pass: {}", self.blocked.join(", "))),
        }
        if self.is_exact() {
            lines.push("  a repeated insert is recognised and doubles no row".to_owned());
            lines.push(
                "  records that are read again after a crash give double rows, except in exactly-once mode"
                    .to_owned(),
            );
            lines.push("  exactly once: possible with this table".to_owned());
        } else {
            lines.push("  a repeated insert may double its rows:".to_owned());
            lines.extend(self.doubles.iter().map(|reason| format!("    {reason}")));
            lines.push("  exactly once: not possible, for the same reason".to_owned());
        }
        lines.join("\n")
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "delivery": if self.blocked.is_empty() { "at-least-once" } else { "none" },
            "blocked_by": self.blocked,
            "exactly_once_possible": self.blocked.is_empty() && self.is_exact(),
            "why_not_exactly_once": self.doubles,
        })
    }
}

fn without_window(table: &TableFacts) -> Option<String> {
    match (table.stores_rows(), table.window) {
        (false, _) => None,
        (true, Some(window)) if window > 0 => None,
        (true, Some(_)) => Some(format!("{} has no deduplication window", table.name)),
        (true, None) => Some(format!("{} ({}) does not deduplicate", table.name, table.engine_name())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::Diagnosis;
    use super::super::sample_facts::facts;
    use super::*;

    fn guarantee_of(facts: &Facts) -> Guarantee {
        Diagnosis::of(facts).guarantee.unwrap()
    }

    #[test]
    fn the_weakest_table_decides() {
        let good = facts();
        assert!(guarantee_of(&good).text().contains("exactly once: possible"));
        let with = |change: fn(&mut Facts)| {
            let mut facts = facts();
            change(&mut facts);
            guarantee_of(&facts)
        };
        let view = |engine: &str, window| TableFacts {
            name: "db.daily".into(),
            view: Some("db.v".into()),
            engine: engine.into(),
            window,
            ..TableFacts::default()
        };
        let mut facts = facts();
        facts.clickhouse.tables.as_mut().unwrap().push(view("SummingMergeTree", Some(0)));
        let guarantee = guarantee_of(&facts);
        assert!(guarantee.text().contains("at least once") && guarantee.text().contains("db.daily has no"));
        assert_eq!(guarantee.json()["exactly_once_possible"], false);
        let tables = facts.clickhouse.tables.as_mut().unwrap();
        tables[1] = view("Null", None);
        assert!(guarantee_of(&facts).is_exact(), "a table that keeps no rows doubles none");
        facts.clickhouse.tables.as_mut().unwrap()[1] = view("Memory", None);
        assert!(!guarantee_of(&facts).is_exact());
        assert!(!with(|facts| facts.clickhouse.deduplicates = Some(false)).is_exact());
    }

    #[test]
    fn a_failed_check_leaves_no_guarantee() {
        let mut facts = facts();
        facts.kafka.partitions = Err("no such topic".into());
        let guarantee = guarantee_of(&facts);
        assert!(
            guarantee.text().starts_with("guarantee: none until these checks pass: topic"),
            "{}",
            guarantee.text()
        );
        assert_eq!(guarantee.json()["delivery"], "none");
    }
}
