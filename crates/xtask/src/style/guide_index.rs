//! The guide's index of names is what the pages of errors, log events and metrics have.
//!
//! Other checks and tests compare these pages with the code. With `KMR_WRITE_INDEX=1` the check
//! writes the index.

use std::collections::{BTreeMap, BTreeSet};

use crate::root;
use crate::style::Finding;
use crate::style::files::SourceFile;
use crate::style::links::anchor;

const PAGE: &str = "docs/guide/src/index-of-names.md";

/// A difference between the index and the pages.
pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    let text = index(files);
    if std::env::var_os("KMR_WRITE_INDEX").is_some() && std::fs::write(root().join(PAGE), &text).is_ok() {
        return Vec::new();
    }
    let page = files.iter().find(|file| file.path == PAGE).map_or("", |file| &file.text);
    let line = text.lines().zip(page.lines()).take_while(|(left, right)| left == right).count() + 1;
    let why = "KMR_WRITE_INDEX=1 cargo xtask test --only style writes it".to_owned();
    let finding = Finding { file: PAGE.to_owned(), line, text: why };
    (page != text).then_some(finding).into_iter().collect()
}

/// The whole page.
fn index(files: &[SourceFile]) -> String {
    let page = |path: &str| files.iter().find(|file| file.path == path).map_or("", |file| &file.text);
    let failures = rows(page("docs/failures.md")).flat_map(|(section, cell)| {
        let names = cell.split("(`").skip(1).filter_map(|rest| rest.split_once('`'));
        names.filter(|(name, _)| is_error(name)).map(move |(name, _)| (name, section))
    });
    let events = names(page("docs/log-events.md"), "kmr.");
    let metrics = names(page("docs/metrics.md"), "kmr_");
    let mut text = String::from(HEAD);
    table(&mut text, "Errors", "failures.md", failures);
    table(&mut text, "Log events", "log-events.md", events.into_iter());
    table(&mut text, "Metrics", "metrics.md", metrics.into_iter());
    text
}

const HEAD: &str = "# Index of names

Each name leads to the section that explains it. Search this page for the name that you have. For
the codes of ClickHouse see [its error codes](../../clickhouse-errors.md).

`cargo xtask test --only style` generates this page from the pages that it leads to, and these are
compared with the code.
";

/// The rows of all tables: the heading above, and the first cell.
fn rows(page: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut section = "";
    page.lines().filter_map(move |line| {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        }
        let cell = line.strip_prefix("| ")?.split('|').next()?.trim();
        Some((section, cell))
    })
}

/// First cells that are one name with this prefix, with the heading above.
fn names<'p>(page: &'p str, prefix: &str) -> Vec<(&'p str, &'p str)> {
    let name = |(section, cell): (&'p str, &'p str)| {
        let name = cell.strip_prefix('`')?.strip_suffix('`')?;
        let is_name = name.starts_with(prefix) && !name.contains([' ', '-', '`']);
        is_name.then_some((name, section))
    };
    rows(page).filter_map(name).collect()
}

fn is_error(name: &str) -> bool {
    name.starts_with(char::is_uppercase) && name.chars().all(|next| next.is_alphanumeric() || next == ':')
}

fn table<'p>(text: &mut String, title: &str, page: &str, names: impl Iterator<Item = (&'p str, &'p str)>) {
    let mut sections: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, section) in names {
        sections.entry(name).or_default().insert(section);
    }
    text.push_str(&format!("\n## {title}\n\n| name | explained in |\n|---|---|\n"));
    for (name, sections) in sections {
        let link = |section: &&str| format!("[{section}](../../{page}#{})", anchor(section));
        let links: Vec<String> = sections.iter().map(link).collect();
        text.push_str(&format!("| `{name}` | {} |\n", links.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::style::files::Language;

    #[test]
    fn names_lead_to_the_sections_of_their_tables() {
        let file = |path: &str, text: &str| SourceFile {
            path: path.to_owned(),
            language: Language::Markdown,
            text: text.to_owned(),
        };
        let files = [
            file(
                "docs/failures.md",
                "## The start\n| you see | x |\n| `a b` (`Config`), `c` (`E::F`) | (`No`) |\n",
            ),
            file("docs/log-events.md", "## kmr-core\n| `kmr.commit.failed` | warn |\n"),
            file("docs/metrics.md", "## The table\n| `kmr_lag` | gauge |\n| `kmr_a - kmr_b` | no |\n"),
        ];
        let text = index(&files);
        for row in [
            "| `Config` | [The start](../../failures.md#the-start) |",
            "| `E::F` | [The start](../../failures.md#the-start) |",
            "| `kmr.commit.failed` | [kmr-core](../../log-events.md#kmr-core) |",
            "| `kmr_lag` | [The table](../../metrics.md#the-table) |",
        ] {
            assert!(text.lines().any(|line| line == row), "{row}\n{text}");
        }
        assert!(!text.contains("`No`") && !text.contains("kmr_a"), "{text}");
        assert_eq!(check(&files).len(), 1);
    }
}
