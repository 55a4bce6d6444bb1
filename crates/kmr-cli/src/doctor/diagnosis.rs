//! The diagnosis: a row for each check, and the guarantee that follows; as a table and as JSON.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::facts::Facts;
use super::guarantee::Guarantee;
use super::{judge_clickhouse, judge_kafka};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ok,
    /// Works, and something should be known.
    Warn,
    /// `run` will not start, or will stop, or lose the guarantee.
    Fail,
    /// Could not be found out.
    Unknown,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "FAIL",
            State::Unknown => "unknown",
        }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) state: State,
    pub(super) found: String,
    /// What to do; empty where nothing is.
    pub(super) remedy: String,
}

impl Check {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), remedy: String::new() }
    }

    pub(super) fn new(
        name: &'static str,
        state: State,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, state, found: found.into(), remedy: remedy.into() }
    }

    pub(super) fn unknown(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, State::Unknown, found, "")
    }
}

/// All rows, and what they come to.
#[derive(Clone, Debug)]
pub(super) struct Diagnosis {
    pub(super) checks: Vec<Check>,
    pub(super) guarantee: Guarantee,
}

impl Diagnosis {
    /// Judges. Pure.
    pub(super) fn of(facts: &Facts) -> Self {
        let mut checks = judge_kafka::checks(facts);
        checks.extend(judge_clickhouse::checks(facts));
        let guarantee = Guarantee::of(facts, &checks);
        Self { checks, guarantee }
    }

    /// Whether there is a hard problem.
    pub(super) fn is_in_the_way(&self) -> bool {
        self.checks.iter().any(|check| check.state == State::Fail)
    }

    /// For people. `width`: of the terminal; `None` breaks no lines.
    pub(super) fn text(&self, width: Option<u16>) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["", "check", "found"]);
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
        format!("{table}\n{}", self.guarantee.text())
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
        json!({
            "passed": !self.is_in_the_way(),
            "checks": self.checks.iter().map(check).collect::<Vec<_>>(),
            "guarantee": self.guarantee.json(),
        })
    }
}

/// Columns of the terminal that standard output is, if it is one.
pub(super) fn width() -> Option<u16> {
    let term = console::Term::stdout();
    term.features().is_attended().then(|| term.size().1)
}
