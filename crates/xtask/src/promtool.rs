//! The alert rules and the queries of the dashboard, checked by Prometheus' own promtool.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{answer, state_directory};
use crate::{packages, root};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs the tests of the alert rules, and parses the queries. Returns 0: each fault is an error.
///
/// # Errors
///
/// A rule or a query is wrong, or promtool cannot be had.
pub(crate) fn check() -> Result<usize> {
    let promtool = packages::unpacked("promtool", "prometheus")?;
    let rules = root().join("deploy/prometheus");
    println!(
        "{}",
        answer(Command::new(&promtool).args(["check", "rules"]).arg(rules.join("alerts.yml")), LIMIT)?
    );
    println!(
        "{}",
        answer(Command::new(&promtool).args(["test", "rules"]).arg(rules.join("alerts-test.yml")), LIMIT)?
    );
    let queries = queries(&read(&root().join("deploy/grafana/kmr.json"))?);
    ensure!(!queries.is_empty(), "the dashboard has no queries");
    let file = state_directory().join("dashboard-queries.yml");
    std::fs::write(&file, as_rules(&queries))?;
    println!("{}", answer(Command::new(&promtool).args(["check", "rules"]).arg(&file), LIMIT)?);
    Ok(0)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The queries of a dashboard with values in place of Grafana's variables.
fn queries(dashboard: &str) -> Vec<String> {
    let values = dashboard.lines().filter_map(|line| line.trim().strip_prefix("\"expr\": \""));
    let values = values.filter_map(|value| value.strip_suffix("\","));
    let plain = |value: &str| value.replace("\\\"", "\"").replace("$__rate_interval", "5m").replace('$', "");
    values.map(plain).collect()
}

/// Recording rules, because promtool reads no bare queries.
fn as_rules(queries: &[String]) -> String {
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, query) in queries.iter().enumerate() {
        rules += &format!(
            "      - record: kmr:dashboard:query{number}\n        expr: '{}'\n",
            query.replace('\'', "''")
        );
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_with_values_for_variables() {
        let dashboard = "  \"expr\": \"rate(a{job=~\\\"$job\\\"}[$__rate_interval])\",\n  \"expr\": \"b\",";
        assert_eq!(queries(dashboard), ["rate(a{job=~\"job\"}[5m])", "b"]);
        let rules = as_rules(&["a{b='c'}".to_owned()]);
        assert!(rules.ends_with("- record: kmr:dashboard:query0\n        expr: 'a{b=''c''}'\n"), "{rules}");
    }
}
