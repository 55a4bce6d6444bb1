//! What `deploy/` and docs/operate.md name exists: metrics, sections of documents, other files.

use std::collections::BTreeSet;

use crate::style::Finding;
use crate::style::files::SourceFile;
use crate::style::links;

/// The page with the table of metrics, which tests compare with a consumer.
const METRICS: &str = "docs/metrics.md";
/// The page that explains the files.
const PAGE: &str = "docs/operate.md";

/// Every name of a metric that the table lacks, every runbook without a section, and every alert
/// without an entry.
pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    let text_of = |path: &str| files.iter().find(|file| file.path == path).map_or("", |file| &file.text);
    let known = table(text_of(METRICS));
    let (page, anchors) = (text_of(PAGE), links::anchors(text_of(PAGE)));
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("deploy/") || file.path == PAGE) {
        for (number, line) in file.text.lines().enumerate() {
            let mut add =
                |text: String| findings.push(Finding { file: file.path.clone(), line: number + 1, text });
            for name in metrics(line).filter(|name| !known.contains(base(name, &known))) {
                add(format!("{METRICS} has no metric `{name}`"));
            }
            if let Some(anchor) = line.trim().strip_prefix("runbook: docs/operate.md#")
                && !anchors.contains(anchor)
            {
                add(format!("{PAGE} has no section #{anchor}"));
            }
            if let Some(alert) = line.trim().strip_prefix("- alert: ")
                && !page.contains(&format!("`{alert}`"))
            {
                add(format!("{PAGE} does not name `{alert}`"));
            }
        }
    }
    findings
}

/// The names in the first column of the table.
fn table(page: &str) -> BTreeSet<String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `kmr_"));
    rows.filter_map(|row| row.split_once('`')).map(|(name, _)| format!("kmr_{name}")).collect()
}

/// The words of a line that are names of metrics.
fn metrics(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    words.filter(|word| word.starts_with("kmr_"))
}

/// A series of a histogram without its ending.
fn base<'n>(name: &'n str, known: &BTreeSet<String>) -> &'n str {
    let ends = ["_bucket", "_count", "_sum"].iter().find_map(|ending| name.strip_suffix(ending));
    ends.filter(|base| known.contains(*base)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::style::files::Language;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.to_owned(), language: Language::Hash, text: text.to_owned() }
    }

    #[test]
    fn names_that_do_not_exist_are_found() {
        let files = [
            file(METRICS, "| `kmr_records_total` | counter |\n| `kmr_batch_rows` | histogram |\n"),
            file(PAGE, "# Operating\n\n## Lag grows\n\nThe alert `KmrLag`.\n"),
            file(
                "deploy/prometheus/alerts.yml",
                "- alert: KmrLag\n  expr: rate(kmr_records_total[5m]) > kmr_batch_rows_sum\n  runbook: docs/operate.md#lag-grows\n",
            ),
            file(
                "deploy/grafana/kmr.json",
                "\"expr\": \"kmr_record_total\"\n- alert: KmrGone\nrunbook: docs/operate.md#gone\n",
            ),
        ];
        let texts: Vec<String> = check(&files).into_iter().map(|finding| finding.to_string()).collect();
        assert_eq!(
            texts,
            [
                "deploy/grafana/kmr.json:1: docs/metrics.md has no metric `kmr_record_total`",
                "deploy/grafana/kmr.json:2: docs/operate.md does not name `KmrGone`",
                "deploy/grafana/kmr.json:3: docs/operate.md has no section #gone",
            ]
        );
    }
}
