//! What docs/failures.md quotes exists in the code: log lines, error texts, names of errors.
//!
//! A quote is a code span in the first cell of a table. `…` stands for any text.

use crate::style::Finding;
use crate::style::files::{Language, SourceFile};

/// The page whose quotes are checked.
const PAGE: &str = "docs/failures.md";

/// Every quote that no source file of a crate contains.
pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    let sources = files.iter().filter(|file| file.language == Language::Rust);
    let code: String = sources.filter(|file| is_product(&file.path)).map(|file| joined(&file.text)).collect();
    let page = files.iter().find(|file| file.path == PAGE);
    let lines = page.into_iter().flat_map(|page| page.text.lines().enumerate());
    let cells =
        lines.filter_map(|(index, line)| Some((index + 1, line.strip_prefix('|')?.split('|').next()?)));
    let quotes = cells.flat_map(|(line, cell)| cell.split('`').skip(1).step_by(2).map(move |q| (line, q)));
    let wrong = quotes.filter(|(_, quote)| parts(quote).any(|part| !code.contains(part)));
    let finding = |(line, quote): (usize, &str)| {
        let text = format!("`{quote}`: no crate has this text");
        Finding { file: PAGE.to_owned(), line, text }
    };
    wrong.map(finding).collect()
}

fn is_product(path: &str) -> bool {
    path.starts_with("crates/") && !path.starts_with("crates/xtask/")
}

/// String literals that go over several lines, in one.
fn joined(source: &str) -> String {
    let mut lines = source.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start())
}

/// The parts of a quote that the code has literally. A stage's number is not one.
fn parts(quote: &str) -> impl Iterator<Item = &str> {
    let parts = quote.split('…').map(|part| part.trim_matches([' ', ':']));
    parts.filter(|part| !part.is_empty() && !is_stage(part))
}

fn is_stage(part: &str) -> bool {
    let number = part.strip_prefix("map ").or_else(|| part.strip_prefix("reduce "));
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(page: &str, code: &str) -> Vec<usize> {
        let file = |path: &str, language, text: &str| SourceFile {
            path: path.to_owned(),
            language,
            text: text.to_owned(),
        };
        let files = [file(PAGE, Language::Markdown, page), file("crates/a/src/b.rs", Language::Rust, code)];
        check(&files).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn quotes_of_a_first_cell_have_to_exist() {
        let code = "warn!(\"delivery failed, \\\n    trying again\"); enum E { Rejected }";
        assert_eq!(wrong("| `delivery failed, trying again` (`Rejected`) | `anything` |", code), []);
        assert_eq!(wrong("text\n| `delivery gave up` | x |\n| `Unknown` | y |", code), [2, 3]);
        assert_eq!(wrong("| `delivery … again` | x |\n| `delivery … anew` | x |", code), [2]);
        assert_eq!(wrong("| `reduce 1: …` | x |\nno table: `nothing`", code), []);
    }
}
