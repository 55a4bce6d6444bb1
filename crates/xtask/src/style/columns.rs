//! Comments, documentation and Markdown wrap at 100 columns. rustfmt leaves comments alone.
//!
//! Exempt are tables, code blocks, and lines that cannot be broken: one address, one link, or one
//! word.

use crate::style::Finding;
use crate::style::files::{Language, SourceFile};
use crate::style::markdown::{self, LineKind};
use crate::style::rust;

/// The last column that a comment may use.
pub(crate) const MAX: usize = 100;

/// Programs that must not compile. Their comments quote the compiler, each message on one line.
const QUOTES: &str = "/tests/ui/fail/";

/// Every line that is too long.
pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    files.iter().filter(|file| !file.path.contains(QUOTES)).flat_map(check_file).collect()
}

fn check_file(file: &SourceFile) -> Vec<Finding> {
    let source: Vec<&str> = file.text.lines().collect();
    let lines = match file.language {
        Language::Rust => long_comments(&file.text, &source),
        Language::Markdown => long_lines(&source, &source, 1, false),
        Language::Hash => long_hash_comments(&source),
        Language::Json | Language::Other => Vec::new(),
    };
    let finding = |(line, columns)| {
        let text = format!("{columns} columns; comments and Markdown wrap at {MAX}");
        Finding { file: file.path.clone(), line, text }
    };
    lines.into_iter().map(finding).collect()
}

/// Lines and their widths.
fn long_comments(text: &str, source: &[&str]) -> Vec<(usize, usize)> {
    let tokens = rust::tokens(text);
    let blocks = rust::comment_blocks(&tokens);
    blocks.iter().flat_map(|block| long_lines(&block.lines, source, block.line, block.is_doc)).collect()
}

/// Lines that hold nothing but a comment, and their widths.
fn long_hash_comments(source: &[&str]) -> Vec<(usize, usize)> {
    let widths =
        source.iter().zip(1..).map(|(line, number)| (number, line.trim_end().chars().count(), *line));
    let long = widths.filter(|(_, columns, line)| {
        *columns > MAX && line.trim_start().starts_with("# ") && can_be_broken(line)
    });
    long.map(|(number, columns, _)| (number, columns)).collect()
}

/// The lines of one text that are too long in the source, where the text starts at `first_line`.
fn long_lines(text: &[&str], source: &[&str], first_line: usize, is_rustdoc: bool) -> Vec<(usize, usize)> {
    let kinds = markdown::line_kinds(text.iter().copied(), is_rustdoc);
    let long = |(index, (line, kind)): (usize, (&&str, LineKind))| {
        let number = first_line + index;
        let columns = source.get(number - 1)?.trim_end().chars().count();
        let is_long = columns > MAX && kind == LineKind::Text && can_be_broken(line);
        is_long.then_some((number, columns))
    };
    text.iter().zip(kinds).enumerate().filter_map(long).collect()
}

fn can_be_broken(line: &str) -> bool {
    let text =
        line.trim().trim_start_matches(['-', '*', '>', '#', ' ']).trim_end_matches(['.', ',', ';', ':']);
    let is_definition = text.starts_with('[') && text.contains("]: ");
    let is_link = text.starts_with('[') && text.ends_with(')') && text.matches("](").count() == 1;
    text.contains(char::is_whitespace) && !is_definition && !is_link
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(language: Language, text: &str) -> Vec<usize> {
        let file = SourceFile { path: "x".to_owned(), language, text: text.to_owned() };
        check(&[file]).into_iter().map(|finding| finding.line).collect()
    }

    fn words(columns: usize) -> String {
        "ab ".repeat(columns).chars().take(columns - 1).chain(['c']).collect()
    }

    #[test]
    fn a_comment_may_use_the_last_column_and_no_more() {
        assert!(long(Language::Rust, &format!("// {}\n", words(97))).is_empty());
        assert_eq!(long(Language::Rust, &format!("\n// {}\n", words(98))), [2]);
        assert_eq!(long(Language::Rust, &format!("let x = 1; // {}\n", words(90))), [1]);
        assert_eq!(long(Language::Rust, &format!("/* a\n{}\n*/", words(101))), [2]);
        assert_eq!(long(Language::Markdown, &words(101)), [1]);
        assert_eq!(long(Language::Hash, &format!("# {}\nx = 1 # {}\n", words(99), words(99))), [1]);
    }

    #[test]
    fn characters_count_and_not_bytes() {
        assert!(long(Language::Markdown, &"é ".repeat(50)).is_empty());
    }

    #[test]
    fn code_is_left_to_rustfmt() {
        assert!(long(Language::Rust, &format!("let x = \"// {}\";\n", words(120))).is_empty());
        let example = format!("/// ```\n/// {}\n/// ```\n/// {}\n", words(120), words(97));
        assert_eq!(long(Language::Rust, &example), [4]);
    }

    #[test]
    fn tables_code_and_what_cannot_be_broken_are_exempt() {
        let address = format!("https://x/{}", "a".repeat(100));
        let good = [
            format!("| {} |", words(120)),
            format!("```\n{}\n```", words(120)),
            address.clone(),
            format!("* [the words of a link]({address}),"),
            format!("[label]: {address}"),
        ];
        for text in good {
            assert!(long(Language::Markdown, &text).is_empty(), "{text}");
        }
        assert_eq!(long(Language::Markdown, &format!("See this: {address}")), [1]);
    }
}
