//! The diagnosis: all checks and the delivery guarantee, as a table and as JSON.

use comfy_table::ContentArrangement;
use kmr_cli_support::table;
use serde_json::{Value, json};

use super::check::{Check, State};
use super::facts::Facts;
use super::guarantee::Guarantee;
use super::{clickhouse_checks, kafka_checks};

/// All checks, and the guarantee that follows from them.
#[derive(Clone, Debug)]
pub(super) struct Diagnosis {
    pub(super) checks: Vec<Check>,
    /// Only after all checks.
    pub(super) guarantee: Option<Guarantee>,
}

impl Diagnosis {
    /// Checks the facts. Pure.
    pub(super) fn of(facts: &Facts) -> Self {
        let mut checks = kafka_checks::checks(facts);
        checks.extend(clickhouse_checks::checks(facts));
        let guarantee = Guarantee::of(facts, &checks);
        Self { checks, guarantee: Some(guarantee) }
    }

    /// Checks the facts that decide whether the consumer starts. Pure.
    pub(super) fn of_start_up(facts: &Facts) -> Self {
        let mut checks = kafka_checks::start_up_checks(facts);
        checks.extend(clickhouse_checks::start_up_checks(facts));
        Self { checks, guarantee: None }
    }

    /// Whether no check fails.
    pub(super) fn passes(&self) -> bool {
        self.checks.iter().all(|check| check.state != State::Fail)
    }

    /// For people. `width`: columns of the terminal; `None` does not wrap lines.
    pub(super) fn text(&self, width: Option<u16>) -> String {
        let mut table = table::with_header(["", "check", "found"]);
        if let Some(width) = width {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        for check in &self.checks {
            let found = match check.remedy.as_str() {
                "" => check.found.clone(),
                remedy => format!("{}\n→ {remedy}", check.found),
            };
            table.add_row([check.state.name(), check.name, &found]);
        }
        match &self.guarantee {
            Some(guarantee) => format!("{table}\n{}", guarantee.text()),
            None => table.to_string(),
        }
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let check = |check: &Check| {
            json!({
                "check": check.name,
                "state": check.state.name().to_lowercase(),
                "found": check.found,
                "remedy": check.remedy,
            })
        };
        let mut json = json!({
            "passed": self.passes(),
            "checks": self.checks.iter().map(check).collect::<Vec<_>>(),
        });
        if let Some(guarantee) = &self.guarantee {
            json["guarantee"] = guarantee.json();
        }
        json
    }
}

/// Columns of the terminal, if standard output is one.
pub(super) fn terminal_width() -> Option<u16> {
    let term = console::Term::stdout();
    term.features().is_attended().then(|| term.size().1)
}
