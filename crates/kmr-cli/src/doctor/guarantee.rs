//! The delivery guarantee that follows from the facts, and the reasons for its limits. Pure.

use kmr_sinks::clickhouse::EngineClass;
use serde_json::{Value, json};

use super::check::{Check, State};
use super::facts::{Facts, TableFacts};

/// The delivery guarantee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guarantee {
    /// Checks that prevent any guarantee.
    blocked: Vec<&'static str>,
    /// Checks without a result.
    unknown: Vec<&'static str>,
    /// What a kill of each part and a loss of power leave.
    left_after: Vec<(&'static str, String)>,
    /// Replicated tables. kmr's own tests do not insert into such a table.
    untested: Vec<String>,
    /// Reasons why a repeated insert may double rows; empty if it cannot.
    doubles: Vec<String>,
}

impl Guarantee {
    pub(super) fn of(facts: &Facts, checks: &[Check]) -> Self {
        let named = |state| {
            let found = checks.iter().filter(move |check| check.state == state);
            found.map(|check| check.name).collect::<Vec<_>>()
        };
        let mut doubles = Vec::new();
        match &facts.clickhouse.tables {
            Ok(tables) if !tables.is_empty() => doubles.extend(tables.iter().filter_map(without_window)),
            _ => doubles.push("the table could not be read".to_owned()),
        }
        if let Some(setting) = facts.clickhouse.disables_windows() {
            doubles.push(format!("{setting} for this user"));
        }
        let tables = facts.clickhouse.tables.as_deref().unwrap_or_default();
        let is_replicated = |engine: &str| engine.starts_with("Replicated") || engine.starts_with("Shared");
        let replicated = tables.iter().filter(|table| is_replicated(&table.engine));
        Self {
            blocked: named(State::Fail),
            unknown: named(State::Unknown),
            left_after: left_after(facts),
            untested: replicated.map(|table| table.name.clone()).collect(),
            doubles,
        }
    }

    /// Whether the table and all targets of its views recognise a repeated insert.
    fn is_exact(&self) -> bool {
        self.doubles.is_empty()
    }

    pub(super) fn text(&self) -> String {
        let mut lines = Vec::new();
        match (&self.blocked[..], &self.unknown[..]) {
            ([], []) => {
                lines.push("guarantee: at least once: no record is lost or skipped silently".to_owned());
            }
            ([], unknown) => {
                lines.push(format!("guarantee: unknown, as these checks are: {}", unknown.join(", ")));
            }
            (blocked, _) => {
                lines.push(format!("guarantee: none until these checks pass: {}", blocked.join(", ")));
            }
        }
        lines.extend(self.left_after.iter().map(|(event, left)| format!("  {event}: {left}")));
        if self.is_exact() {
            lines.push("  a repeated insert is recognised and doubles no row".to_owned());
            lines.push(
                "  records that are read again after a crash give double rows, except in exactly-once mode"
                    .to_owned(),
            );
            let untested = match self.untested[..] {
                [] => String::new(),
                _ => format!(
                    "; replicated tables are not covered by kmr's tests: {}",
                    self.untested.join(", ")
                ),
            };
            lines.push(format!("  exactly once: possible with this table{untested}"));
        } else {
            lines.push("  a repeated insert may double its rows:".to_owned());
            lines.extend(self.doubles.iter().map(|reason| format!("    {reason}")));
            lines.push("  exactly once: not possible, for the same reason".to_owned());
        }
        lines.join("\n")
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "delivery": match (self.blocked.is_empty(), self.unknown.is_empty()) {
                (false, _) => "none",
                (true, false) => "unknown",
                (true, true) => "at-least-once",
            },
            "after": self
                .left_after
                .iter()
                .map(|(event, left)| json!({ "event": event, "left": left }))
                .collect::<Vec<_>>(),
            "blocked_by": self.blocked,
            "exactly_once_possible": self.blocked.is_empty() && self.unknown.is_empty() && self.is_exact(),
            "why_not_exactly_once": self.doubles,
            "not_tested": self.untested,
        })
    }
}

/// What a kill of each part and a loss of power leave.
fn left_after(facts: &Facts) -> Vec<(&'static str, String)> {
    let consumer = "nothing is lost; records after the last commit are read again".to_owned();
    let broker = match &facts.kafka.partitions {
        Err(_) => "unknown".to_owned(),
        Ok(partitions) => {
            let alone: Vec<_> =
                partitions.iter().filter(|p| p.replicas < 2).map(|p| p.id.to_string()).collect();
            match alone[..] {
                [] => "nothing is lost while one replica in sync is left".to_owned(),
                _ => format!(
                    "partitions wait for its restart, as they have no other replica: {}",
                    alone.join(", ")
                ),
            }
        }
    };
    let (server, power) = match &facts.clickhouse.tables {
        Ok(tables) if !tables.is_empty() => (after_server_kill(tables), after_power_loss(tables)),
        _ => ("unknown".to_owned(), "unknown".to_owned()),
    };
    vec![
        ("kill -9 of the consumer", consumer),
        ("kill -9 of a Kafka broker", broker),
        ("kill -9 of ClickHouse", server),
        ("loss of power of ClickHouse's machine", power),
    ]
}

/// What a kill of ClickHouse leaves of acknowledged rows.
fn after_server_kill(tables: &[TableFacts]) -> String {
    let volatile: Vec<_> = tables
        .iter()
        .filter(|table| table.is_volatile() && table.stores_rows())
        .map(|table| format!("{} ({})", table.name, table.engine))
        .collect();
    match (&volatile[..], tables.first()) {
        ([], Some(own)) if own.class == Some(EngineClass::Forwarding) => {
            format!("unknown: {} passes rows on, and its destination is not checked", own.name)
        }
        ([], _) => "nothing is lost that it has acknowledged".to_owned(),
        (volatile, _) => format!("acknowledged rows are lost from {}", volatile.join(", ")),
    }
}

/// What a loss of power leaves of acknowledged rows.
fn after_power_loss(tables: &[TableFacts]) -> String {
    let unsynced = |table: &&TableFacts| table.stores_rows() && !table.syncs;
    let names: Vec<_> = tables.iter().filter(unsynced).map(|table| table.name.as_str()).collect();
    match names[..] {
        [] => "nothing is lost that it has acknowledged".to_owned(),
        _ => format!(
            "the last acknowledged rows may be lost, unless replicas have them: no fsync_after_insert for {}",
            names.join(", ")
        ),
    }
}

/// Why the table may store a repeated insert again. `None`: it does not.
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
            class: Some(EngineClass::of(engine, engine)),
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
        let disabled = with(|facts| {
            facts.clickhouse.profile = Ok([("insert_deduplicate".to_owned(), "0".to_owned())].into());
        });
        assert!(!disabled.is_exact());
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

    #[test]
    fn replicated_tables_are_named_as_not_tested() {
        let mut facts = facts();
        assert!(!guarantee_of(&facts).text().contains("not covered"));
        facts.clickhouse.tables.as_mut().unwrap()[0].engine = "ReplicatedMergeTree".into();
        let text = guarantee_of(&facts).text();
        assert!(
            text.contains("exactly once: possible") && text.contains("not covered by kmr's tests: db.t"),
            "{text}"
        );
    }

    #[test]
    fn the_loss_of_each_part_is_named() {
        let text = guarantee_of(&facts()).text();
        assert!(text.contains("kill -9 of ClickHouse: nothing is lost"), "{text}");
        assert!(
            text.contains("machine: the last acknowledged rows may be lost") && text.contains("db.t"),
            "{text}"
        );
        let with = |change: fn(&mut TableFacts)| {
            let mut facts = facts();
            facts.clickhouse.tables.as_mut().unwrap().iter_mut().for_each(change);
            guarantee_of(&facts).text()
        };
        let memory = with(|table| {
            table.engine = "Buffer".into();
            table.class = Some(EngineClass::Buffered);
        });
        assert!(memory.starts_with("guarantee: none until these checks pass: engine"), "{memory}");
        assert!(
            memory.contains("kill -9 of ClickHouse: acknowledged rows are lost from db.t (Buffer)"),
            "{memory}"
        );
        assert!(with(|table| table.syncs = true).contains("machine: nothing is lost"));
    }
}
