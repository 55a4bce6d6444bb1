//! The delivery guarantee that will really be obtained, and why it is no better. Pure.

use serde_json::{Value, json};

use super::facts::{Facts, TableFacts};
use super::report::{Check, State};

/// What can be promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guarantee {
    /// What is in the way of any.
    blocked: Vec<&'static str>,
    /// What may double rows. None: a repeated insert is recognised.
    doubles: Vec<String>,
}

impl Guarantee {
    pub(super) fn of(facts: &Facts, checks: &[Check]) -> Self {
        let failed = checks.iter().filter(|check| check.state == State::Fail).map(|check| check.name);
        let mut doubles = Vec::new();
        match &facts.clickhouse.tables {
            Ok(tables) if !tables.is_empty() => doubles.extend(tables.iter().filter_map(without_window)),
            _ => doubles.push("the table could not be looked at".to_owned()),
        }
        if facts.clickhouse.deduplicates == Some(false) {
            doubles.push("insert_deduplicate is 0 for this user".to_owned());
        }
        Self { blocked: failed.collect(), doubles }
    }

    /// Whether every insert that is sent twice is recognised, down to the last view's table.
    fn is_exact(&self) -> bool {
        self.doubles.is_empty()
    }

    pub(super) fn text(&self) -> String {
        let mut lines = Vec::new();
        match self.blocked[..] {
            [] => lines
                .push("guarantee: at least once: nothing is lost, nothing is skipped silently".to_owned()),
            _ => lines.push(format!("guarantee: none before this is repaired: {}", self.blocked.join(", "))),
        }
        if self.is_exact() {
            lines.push("  an insert that has to be sent again is recognised, and doubles no row".to_owned());
            lines.push(
                "  rows that are read again after a crash are double, unless the writer is exactly-once"
                    .to_owned(),
            );
            lines.push("  exactly once: possible with this table".to_owned());
        } else {
            lines.push("  an insert that has to be sent again may double its rows:".to_owned());
            lines.extend(self.doubles.iter().map(|why| format!("    {why}")));
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
        (true, None) => Some(format!("{} ({}) recognises no block", table.name, table.engine_name())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::judge_clickhouse::tests::facts;
    use super::super::report::Diagnosis;
    use super::*;

    #[test]
    fn the_weakest_table_decides() {
        let good = facts();
        assert!(Diagnosis::of(&good).guarantee.text().contains("exactly once: possible"));
        let with = |change: fn(&mut Facts)| {
            let mut facts = facts();
            change(&mut facts);
            Diagnosis::of(&facts).guarantee
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
        let guarantee = Diagnosis::of(&facts).guarantee;
        assert!(guarantee.text().contains("at least once") && guarantee.text().contains("db.daily has no"));
        assert_eq!(guarantee.json()["exactly_once_possible"], false);
        let tables = facts.clickhouse.tables.as_mut().unwrap();
        tables[1] = view("Null", None);
        assert!(Diagnosis::of(&facts).guarantee.is_exact(), "a table that keeps nothing doubles nothing");
        facts.clickhouse.tables.as_mut().unwrap()[1] = view("Memory", None);
        assert!(!Diagnosis::of(&facts).guarantee.is_exact());
        assert!(!with(|facts| facts.clickhouse.deduplicates = Some(false)).is_exact());
    }

    #[test]
    fn a_hard_problem_leaves_nothing_to_promise() {
        let mut facts = facts();
        facts.kafka.partitions = Err("no such topic".into());
        let guarantee = Diagnosis::of(&facts).guarantee;
        assert!(
            guarantee.text().starts_with("guarantee: none before this is repaired: topic"),
            "{}",
            guarantee.text()
        );
        assert_eq!(guarantee.json()["delivery"], "none");
    }
}
