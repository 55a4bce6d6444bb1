//! Markdown, as far as the checks need it: which lines are text, and which are tables or code.

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineKind {
    Text,
    /// A row of a table.
    Table,
    /// The first or the last line of a code block.
    Fence,
    /// A line of a code block; `true` for Rust.
    Code(bool),
}

/// The kind of each line. Code blocks without a language are Rust in rustdoc.
pub(crate) fn line_kinds<'a>(lines: impl IntoIterator<Item = &'a str>, is_rustdoc: bool) -> Vec<LineKind> {
    let mut open: Option<(&str, bool)> = None;
    let kind = |line: &'a str| {
        let text = line.trim_start().trim_start_matches("> ").trim_start();
        match open {
            Some((fence, _))
                if text.starts_with(fence) && text.trim_end().trim_matches(['`', '~']).is_empty() =>
            {
                open = None;
                LineKind::Fence
            }
            Some((_, is_rust)) => LineKind::Code(is_rust),
            None if text.starts_with("```") || text.starts_with("~~~") => {
                let length = text.len() - text.trim_start_matches(&text[..1]).len();
                let (fence, language) = text.split_at(length);
                open = Some((fence, is_rust(language.trim(), is_rustdoc)));
                LineKind::Fence
            }
            None if text.starts_with('|') => LineKind::Table,
            None => LineKind::Text,
        }
    };
    lines.into_iter().map(kind).collect()
}

fn is_rust(language: &str, is_rustdoc: bool) -> bool {
    const RUST: [&str; 5] = ["rust", "no_run", "ignore", "compile_fail", "should_panic"];
    match language.split(',').next().unwrap_or_default() {
        "" => is_rustdoc,
        first => RUST.contains(&first),
    }
}

/// The same text with `fill` in the place of each character of code in backticks. Lines stay.
pub(crate) fn blank_code_spans(text: &str, fill: char) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('`') {
        let ticks = rest[start..].len() - rest[start..].trim_start_matches('`').len();
        let (fence, after) = rest[start..].split_at(ticks);
        result.push_str(&rest[..start]);
        // A span ends with as many backticks as it starts with, in the same paragraph.
        let paragraph = after.find("\n\n").unwrap_or(after.len());
        let Some(length) = code_span_length(&after[..paragraph], fence) else {
            result.push_str(fence);
            rest = after;
            continue;
        };
        let span = &rest[start..start + 2 * ticks + length];
        result.extend(span.chars().map(|inner| if inner == '\n' { '\n' } else { fill }));
        rest = &rest[start + span.len()..];
    }
    result.push_str(rest);
    result
}

fn code_span_length(text: &str, fence: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find(fence)?;
        let ticks = text[at..].len() - text[at..].trim_start_matches('`').len();
        if ticks == fence.len() {
            return Some(at);
        }
        from = at + ticks;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_tables_are_distinguished_from_text() {
        let text = "a\n```sh\nb\n```\n| c |\n````\n```\n````\n```rust,no_run\nd\n```\n";
        use LineKind::{Code, Fence, Table, Text};
        let kinds =
            [Text, Fence, Code(false), Fence, Table, Fence, Code(false), Fence, Fence, Code(true), Fence];
        assert_eq!(line_kinds(text.lines(), false), kinds);
    }

    #[test]
    fn code_without_a_language_is_rust_in_rustdoc_only() {
        assert_eq!(line_kinds("```\na\n```".lines(), true)[1], LineKind::Code(true));
        assert_eq!(line_kinds("```\na\n```".lines(), false)[1], LineKind::Code(false));
        assert_eq!(line_kinds("```text\na\n```".lines(), true)[1], LineKind::Code(false));
    }

    #[test]
    fn code_spans_become_spaces() {
        assert_eq!(blank_code_spans("a `b` c", ' '), "a     c");
        assert_eq!(blank_code_spans("``a`b`` c", ' '), "        c");
        assert_eq!(blank_code_spans("an open ` one", ' '), "an open ` one");
        assert_eq!(blank_code_spans("`a\nb` c", ' '), "  \n   c");
    }
}
