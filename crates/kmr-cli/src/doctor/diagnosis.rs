//! The diagnosis: all checks and the delivery guarantee, as a table and as JSON.

use comfy_table::ContentArrangement;
use kmr_cli_support::table;
use serde_json::{Value, json};

use super::check::{Check, State, Verdict};
use super::facts::Facts;
use super::guarantee::Guarantee;
use super::{clickhouse_checks, dead_letter_checks, kafka_checks, registry_checks};

/// All checks, and the guarantee that follows from them.
#[derive(Clone, Debug)]
pub(crate) struct Diagnosis {
    pub(super) checks: Vec<Check>,
    /// Only after all checks.
    pub(super) guarantee: Option<Guarantee>,
}

impl Diagnosis {
    /// Checks the facts. Pure.
    pub(super) fn of(facts: &Facts) -> Self {
        let mut checks = kafka_checks::checks(facts);
        checks.extend(dead_letter_checks::check(&facts.kafka));
        checks.extend(registry_checks::checks(facts));
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

    /// Checks the facts of a consumer that writes to no table. Pure.
    pub(super) fn without_table(facts: &Facts) -> Self {
        let mut checks = kafka_checks::checks(facts);
        checks.extend(dead_letter_checks::check(&facts.kafka));
        checks.extend(registry_checks::checks(facts));
        if let Some((topic, partitions)) = &facts.sink_topic {
            checks.push(match partitions {
                Ok(count) => Check::ok("sink topic", format!("{topic:?}, {count} partitions")),
                Err(reason) => {
                    let remedy =
                        "create it, correct kafka.topic and kafka.brokers, or grant DESCRIBE and WRITE";
                    Check::new("sink topic", State::Fail, format!("{topic:?}: {reason}"), remedy)
                }
            });
        }
        Self { checks, guarantee: None }
    }

    /// Remedies name flags. For a pipeline of a file, they name its keys.
    pub(super) fn in_words_of_a_file(mut self) -> Self {
        for check in &mut self.checks {
            for (flag, key) in KEYS {
                check.remedy = check.remedy.replace(flag, key);
            }
        }
        self
    }

    /// The result of all checks.
    pub(crate) fn verdict(&self) -> Verdict {
        Verdict::of(&self.checks)
    }

    /// For people. `width`: columns of the terminal; `None` does not wrap lines and has no colours.
    pub(crate) fn text(&self, width: Option<u16>) -> String {
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
        let table = match width {
            Some(_) => coloured(&table.to_string()),
            None => table.to_string(),
        };
        let guarantee = self.guarantee.as_ref().map(|guarantee| format!("\n{}", guarantee.text()));
        format!("{table}{}{}", guarantee.unwrap_or_default(), self.summary())
    }

    /// The checks that are unknown: they are neither a failure nor a pass.
    fn summary(&self) -> String {
        let unknown = self.checks.iter().filter(|check| check.state == State::Unknown);
        let names: Vec<_> = unknown.map(|check| check.name).collect();
        match names[..] {
            [] => String::new(),
            _ => format!("\nunknown, so neither passed nor failed: {}", names.join(", ")),
        }
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let check = |check: &Check| {
            json!({
                "check": check.name,
                "state": check.state.name().to_lowercase(),
                "found": check.found,
                "remedy": check.remedy,
            })
        };
        let mut json = json!({
            "passed": self.verdict() == Verdict::Passed,
            "verdict": self.verdict().name(),
            "checks": self.checks.iter().map(check).collect::<Vec<_>>(),
        });
        if let Some(guarantee) = &self.guarantee {
            json["guarantee"] = guarantee.json();
        }
        json
    }
}

/// What remedies name, and the key of a file that it is. Longer names come first.
const KEYS: [(&str, &str); 13] = [
    (
        "create it (`kmr-demo create-table`), or correct --table and --database",
        "create it (`kmr init --create` proposes one), or correct clickhouse.table and clickhouse.database",
    ),
    (
        "change the table: `kmr-demo create-table` prints one that fits",
        "change the table, or name a path, a policy or leave_out for the column in [NAME.columns]",
    ),
    ("--protocol cooperative", "source.protocol = \"cooperative\""),
    ("their --protocol", "their source.protocol"),
    ("--dead-letter-topic", "dead_letters.topic"),
    ("--clickhouse", "clickhouse.urls"),
    ("--max-rows", "batch.max_rows"),
    ("--max-age", "batch.max_age"),
    ("--broker", "source.brokers"),
    ("--topic", "source.topics"),
    ("--group", "source.group"),
    ("--set", "source.settings"),
    ("the flag or setting that this names", "the key or setting that this names"),
];

/// Colours the state at the start of each row.
fn coloured(table: &str) -> String {
    const STATES: [State; 4] = [State::Ok, State::Warn, State::Fail, State::Unknown];
    let colour = |line: &str| {
        let state = STATES.into_iter().find_map(|state| {
            let rest = line.strip_prefix("│ ")?.strip_prefix(state.name())?;
            rest.starts_with(' ').then_some((state, rest))
        });
        match state {
            None => line.to_owned(),
            Some((state, rest)) => format!("│ {}{rest}", styled(state)),
        }
    };
    table.lines().map(colour).collect::<Vec<_>>().join("\n")
}

/// Green, yellow, red; and magenta for what is unknown.
fn styled(state: State) -> console::StyledObject<&'static str> {
    let name = console::style(state.name());
    match state {
        State::Ok => name.green(),
        State::Warn => name.yellow(),
        State::Fail => name.red().bold(),
        State::Unknown => name.magenta().bold(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::facts;
    use super::*;

    #[test]
    fn unknown_is_neither_passed_nor_failed() {
        let good = Diagnosis::of(&facts());
        assert_eq!((good.verdict(), good.verdict().exit_code()), (Verdict::Passed, 0));
        let mut facts = facts();
        facts.kafka.group_state = Err("no answer".into());
        let unknown = Diagnosis::of(&facts);
        assert_eq!((unknown.verdict(), unknown.verdict().exit_code()), (Verdict::Unknown, 3));
        let json = unknown.json();
        assert_eq!((&json["passed"], &json["verdict"]), (&json!(false), &json!("unknown")));
        assert!(unknown.text(None).ends_with("neither passed nor failed: group"), "{}", unknown.text(None));
        assert!(!unknown.guarantee.as_ref().unwrap().text().contains("at least once"));
        facts.kafka.brokers = Err("closed".into());
        let failed = Diagnosis::of(&facts);
        assert_eq!((failed.verdict(), failed.verdict().exit_code()), (Verdict::Failed, 1));
    }

    #[test]
    fn each_state_has_its_own_colour_in_a_terminal() {
        console::set_colors_enabled(true);
        let lines = ["│ ok   ┆ a ┆", "│ warn ┆ a ┆", "│ FAIL ┆ a ┆", "│ unknown ┆ a ┆", "│      ┆ ok ┆"];
        let coloured = coloured(&lines.join("\n"));
        let codes = ["\u{1b}[32mok", "\u{1b}[33mwarn", "\u{1b}[31m", "\u{1b}[35m"];
        for (line, code) in coloured.lines().zip(codes) {
            assert!(line.contains(code), "{line:?}");
        }
        assert_eq!(coloured.lines().last(), Some(lines[4]));
    }
}
