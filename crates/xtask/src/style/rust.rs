//! A lexer for Rust, as exact as the checks need it: comments, strings, names and single
//! characters.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From `//` to the end of the line.
    LineComment,
    BlockComment,
    /// Without its quotes; escapes are left as they are written.
    String,
    Name,
    /// One character.
    Mark,
}

/// A token, with the line (from 1) on which it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

/// Comments on consecutive lines, without what starts a comment: one text, in Markdown where it is
/// documentation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CommentBlock<'a> {
    /// The line of the first one.
    pub(crate) line: usize,
    pub(crate) is_doc: bool,
    pub(crate) lines: Vec<&'a str>,
}

/// All tokens. Numbers, character literals and lifetimes are left out.
pub(crate) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { source, at: 0, line: 1, tokens: Vec::new() };
    while lexer.at < source.len() {
        lexer.step();
    }
    lexer.tokens
}

/// The comments of `tokens`, line comments of neighbouring lines joined.
pub(crate) fn comment_blocks<'a>(tokens: &[Token<'a>]) -> Vec<CommentBlock<'a>> {
    let mut blocks: Vec<CommentBlock<'a>> = Vec::new();
    let mut may_join = false;
    let mut code_line = 0;
    for token in tokens {
        match token.kind {
            Kind::LineComment => {
                let (is_doc, text) = line_comment_text(token.text);
                let trails = code_line == token.line;
                let last = blocks.last_mut().filter(|last| may_join && !trails && last.is_doc == is_doc);
                match last.filter(|last| last.line + last.lines.len() == token.line) {
                    Some(last) => last.lines.push(text),
                    None => blocks.push(CommentBlock { line: token.line, is_doc, lines: vec![text] }),
                }
                may_join = !trails;
            }
            Kind::BlockComment => {
                let is_doc = token.text.starts_with("/**") || token.text.starts_with("/*!");
                let inner = token.text.trim_start_matches(['/', '*', '!']).trim_end_matches(['*', '/']);
                let strip = |line: &'a str| line.trim_start().trim_start_matches("* ");
                let lines = inner.split('\n').map(strip).collect();
                blocks.push(CommentBlock { line: token.line, is_doc, lines });
                may_join = false;
            }
            _ => code_line = token.line,
        }
    }
    blocks
}

fn line_comment_text(comment: &str) -> (bool, &str) {
    let (is_doc, text) = match comment.strip_prefix("///").or_else(|| comment.strip_prefix("//!")) {
        Some(text) if !text.starts_with('/') => (true, text),
        _ => (false, comment.trim_start_matches('/')),
    };
    (is_doc, text.strip_prefix(' ').unwrap_or(text))
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    tokens: Vec<Token<'a>>,
}

impl<'a> Lexer<'a> {
    fn step(&mut self) {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return };
        match first {
            '/' if rest.starts_with("//") => {
                let end = rest.find('\n').unwrap_or(rest.len());
                self.push(Kind::LineComment, end);
            }
            '/' if rest.starts_with("/*") => self.push(Kind::BlockComment, block_comment_end(rest)),
            '"' => self.string(0),
            '\'' => self.skip(character_end(rest)),
            _ if first.is_alphabetic() || first == '_' => self.name_or_string(),
            _ if first.is_ascii_digit() => self.skip(number_end(rest)),
            _ if first.is_whitespace() => self.skip(first.len_utf8()),
            _ => self.push(Kind::Mark, first.len_utf8()),
        }
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn skip(&mut self, length: usize) {
        self.line += self.rest()[..length].matches('\n').count();
        self.at += length;
    }

    fn push(&mut self, kind: Kind, length: usize) {
        let text = self.rest()[..length].trim_end_matches('\r');
        self.tokens.push(Token { kind, text, line: self.line });
        self.skip(length);
    }

    /// A string literal in plain quotes that start `prefix` bytes further on.
    fn string(&mut self, prefix: usize) {
        let content = &self.rest()[prefix + 1..];
        let mut escaped = false;
        let end = content.find(|next| {
            let ends = next == '"' && !escaped;
            escaped = next == '\\' && !escaped;
            ends
        });
        self.push_string(prefix + 1, end.unwrap_or(content.len()), 1);
    }

    /// Pushes what lies between the quotes, and skips all.
    fn push_string(&mut self, before: usize, length: usize, after: usize) {
        self.skip(before);
        self.push(Kind::String, length);
        self.skip(after.min(self.rest().len()));
    }

    fn name_or_string(&mut self) {
        let rest = self.rest();
        let end = rest.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        match name {
            "b" | "c" if after.starts_with('"') => self.string(end),
            "b" if after.starts_with('\'') => self.skip(1 + character_end(after)),
            "r" | "br" | "cr" if after.starts_with(['"', '#']) => {
                let hashes = after.len() - after.trim_start_matches('#').len();
                if !after[hashes..].starts_with('"') {
                    // A raw name, such as r#type.
                    return self.skip(end + hashes);
                }
                let close = format!("\"{}", &after[..hashes]);
                let content = &after[hashes + 1..];
                let length = content.find(&close).unwrap_or(content.len());
                self.push_string(end + hashes + 1, length, close.len());
            }
            _ => self.push(Kind::Name, end),
        }
    }
}

/// Block comments nest.
fn block_comment_end(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The end of a character literal or of a lifetime, which has no second quote.
fn character_end(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        // The character that is escaped may be a quote.
        Some((_, '\\')) => {
            let close = text.char_indices().skip(3).find(|(_, next)| *next == '\'');
            close.map_or(text.len(), |(at, _)| at + 1)
        }
        Some(_) => match characters.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => text.len(),
    }
}

/// A number with its suffix, without the range that may follow.
fn number_end(text: &str) -> usize {
    text.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_kind(source: &str, kind: Kind) -> Vec<(usize, &str)> {
        let all = tokens(source).into_iter().filter(|token| token.kind == kind);
        all.map(|token| (token.line, token.text)).collect()
    }

    #[test]
    fn comments_in_strings_and_strings_in_comments_are_what_surrounds_them() {
        let source = "let url = \"http://x\"; // a \"comment\"\n/* one /* in */ two */ call();";
        assert_eq!(of_kind(source, Kind::String), [(1, "http://x")]);
        assert_eq!(of_kind(source, Kind::LineComment), [(1, "// a \"comment\"")]);
        assert_eq!(of_kind(source, Kind::BlockComment), [(2, "/* one /* in */ two */")]);
        assert_eq!(of_kind(source, Kind::Name), [(1, "let"), (1, "url"), (2, "call")]);
    }

    #[test]
    fn strings_end_at_their_own_quote() {
        let source = "(\"a\\\"b\", r#\"c\"d\"#, b\"e\", \"two\nlines\", after)";
        let strings = [(1, "a\\\"b"), (1, "c\"d"), (1, "e"), (1, "two\nlines")];
        assert_eq!(of_kind(source, Kind::String), strings);
        assert_eq!(of_kind(source, Kind::Name), [(2, "after")]);
    }

    #[test]
    fn characters_and_lifetimes_start_no_string() {
        let source = "fn f<'a>(x: &'a str) { ['\"', '\\'', '\\\\', b'\"', '\\u{41}']; 0..1; r#type }";
        assert!(of_kind(source, Kind::String).is_empty());
        let names: Vec<&str> = of_kind(source, Kind::Name).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["fn", "f", "a", "x", "a", "str", "type"]);
    }

    #[test]
    fn neighbouring_comments_of_one_kind_are_one_block() {
        let source = "//! a\n//! b\n\n/// c\n// d\nlet x = 1; // e\n// f\n";
        let blocks = comment_blocks(&tokens(source)).into_iter();
        let blocks: Vec<_> = blocks.map(|block| (block.line, block.is_doc, block.lines)).collect();
        let lines = [
            (1, true, vec!["a", "b"]),
            (4, true, vec!["c"]),
            (5, false, vec!["d"]),
            (6, false, vec!["e"]),
            (7, false, vec!["f"]),
        ];
        assert_eq!(blocks, lines);
    }
}
