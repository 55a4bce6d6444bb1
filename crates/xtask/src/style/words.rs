//! Counts the words of [`RULES`] in comments, documentation, string literals and names.
//!
//! Text in backticks or in double quotes belongs to a program or to somebody else, and is not
//! counted. Nor is a line that contains [`QUOTED`], in a comment.

use std::collections::{BTreeMap, HashMap};

use crate::style::Finding;
use crate::style::files::{Language, SourceFile};
use crate::style::markdown::{self, LineKind};
use crate::style::rust::{self, Kind, Token};
use crate::style::word_list::{RULES, Rule};

/// Keeps a line from being counted: it quotes what another program prints.
const QUOTED: &str = "words: quoted";

/// Files that name the words in order to find them.
const EXEMPT: [&str; 2] = ["crates/xtask/src/style/word_list.rs", "crates/xtask/src/style/words.rs"];

/// Where a word was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Text,
    Name,
}

/// A word that was found.
#[derive(Debug)]
pub(crate) struct Hit<'a> {
    pub(crate) rule: &'static Rule,
    pub(crate) place: Place,
    pub(crate) file: &'a str,
    pub(crate) line: usize,
    /// As it is written there.
    pub(crate) phrase: String,
}

impl Hit<'_> {
    fn finding(&self) -> Finding {
        let text = format!("`{}`: rather {}", self.phrase, self.rule.instead);
        Finding { file: self.file.to_owned(), line: self.line, text }
    }
}

/// Every hit.
pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    find(files).iter().map(Hit::finding).collect()
}

/// Prints how often each word is found, in which part of the repository, and with `verbose` where.
pub(crate) fn report(files: &[SourceFile], verbose: bool) {
    let hits = find(files);
    if verbose {
        for hit in &hits {
            println!("{}", hit.finding());
        }
        println!("");
    }
    let count = |hits: &[&Hit<'_>]| {
        let names = hits.iter().filter(|hit| hit.place == Place::Name).count();
        (hits.len() - names, names)
    };
    let mut by_part: BTreeMap<&str, Vec<&Hit<'_>>> = BTreeMap::new();
    for hit in &hits {
        by_part.entry(part(hit.file)).or_default().push(hit);
    }
    println!("{:40}  {:>6}  {:>6}  instead", "word", "text", "names");
    for rule in &RULES {
        let of_rule: Vec<&Hit<'_>> = hits.iter().filter(|hit| hit.rule.word == rule.word).collect();
        let (text, names) = count(&of_rule);
        println!("{:40}  {text:6}  {names:6}  {}", rule.word, rule.instead);
    }
    println!("\n{:40}  {:>6}  {:>6}", "part", "text", "names");
    for (part, of_part) in &by_part {
        let (text, names) = count(of_part);
        println!("{part:40}  {text:6}  {names:6}");
    }
    let (text, names) = count(&hits.iter().collect::<Vec<_>>());
    println!("{:40}  {text:6}  {names:6}", "all");
}

/// The crate, or the folder, that a file belongs to.
fn part(path: &str) -> &str {
    let end = match path.strip_prefix("crates/") {
        Some(rest) => rest.find('/').map(|at| at + "crates/".len()),
        None => path.find('/'),
    };
    end.map_or(path, |end| &path[..end])
}

/// All hits, by file and line.
pub(crate) fn find(files: &[SourceFile]) -> Vec<Hit<'_>> {
    let matcher = Matcher::new();
    let mut hits = Vec::new();
    for file in files.iter().filter(|file| !EXEMPT.contains(&file.path.as_str())) {
        let mut found = Vec::new();
        match file.language {
            Language::Rust => matcher.rust(&file.text, 1, &mut found),
            Language::Markdown => matcher.markdown(file.text.lines(), 1, false, &mut found),
            Language::Hash => matcher.hash(&file.text, &mut found),
            Language::Json | Language::Other => {}
        }
        let lines: Vec<&str> = file.text.lines().collect();
        found.retain(|hit| !lines.get(hit.line - 1).is_some_and(|line| line.contains(QUOTED)));
        found.sort_by_key(|hit| (hit.line, hit.place));
        hits.extend(found.into_iter().map(|hit| Hit { file: &file.path, ..hit }));
    }
    hits
}

/// A word of a text, in lower case.
#[derive(Debug, PartialEq, Eq)]
struct Word {
    text: String,
    line: usize,
    /// Whether something other than a space or a hyphen lies between this word and the one before.
    starts_clause: bool,
}

/// A pattern of a rule (see the top of word_list.rs).
struct Pattern {
    words: Vec<Vec<&'static str>>,
    ends_clause: bool,
}

impl Pattern {
    fn new(pattern: &'static str) -> Self {
        let words = pattern.split(' ').filter(|word| *word != "$");
        let words = words.map(|word| word.split('|').collect()).collect();
        Self { words, ends_clause: pattern.ends_with('$') }
    }

    fn matches(&self, words: &[Word], at: usize) -> bool {
        let end = at + self.words.len();
        let Some(found) = words.get(at..end) else { return false };
        let fits = |(index, (word, forms)): (usize, (&Word, &Vec<&str>))| {
            (index == 0 || !word.starts_clause) && (forms[0] == "*" || forms.contains(&word.text.as_str()))
        };
        let ends = || words.get(end).is_none_or(|next| next.starts_clause);
        found.iter().zip(&self.words).enumerate().all(fits) && (!self.ends_clause || ends())
    }

    /// Whether it matches somewhere at the words of `hit`, which it may begin before or end after.
    fn covers(&self, words: &[Word], hit: &std::ops::Range<usize>) -> bool {
        let first = hit.start.saturating_sub(self.words.len() - 1);
        (first..hit.end).any(|at| self.matches(words, at))
    }
}

struct Matcher {
    /// Rules and patterns by the first word of the pattern.
    by_first_word: HashMap<&'static str, Vec<(&'static Rule, Pattern)>>,
    except: HashMap<&'static str, Vec<Pattern>>,
}

impl Matcher {
    fn new() -> Self {
        let mut by_first_word: HashMap<_, Vec<_>> = HashMap::new();
        let mut except = HashMap::new();
        for rule in &RULES {
            for pattern in rule.patterns {
                for first in Pattern::new(pattern).words[0].clone() {
                    by_first_word.entry(first).or_default().push((rule, Pattern::new(pattern)));
                }
            }
            except.insert(rule.word, rule.except.iter().map(|pattern| Pattern::new(pattern)).collect());
        }
        Self { by_first_word, except }
    }

    fn search(&self, words: &[Word], place: Place, hits: &mut Vec<Hit<'_>>) {
        for (at, word) in words.iter().enumerate() {
            let mut last = None;
            for (rule, pattern) in self.by_first_word.get(word.text.as_str()).into_iter().flatten() {
                let range = at..at + pattern.words.len();
                let is_hit = last != Some(rule.word)
                    && (place == Place::Text || rule.in_names)
                    && pattern.matches(words, at)
                    && !self.except[rule.word].iter().any(|except| except.covers(words, &range));
                if is_hit {
                    last = Some(rule.word);
                    let phrase = words[range].iter().map(|word| word.text.as_str());
                    let phrase = phrase.collect::<Vec<_>>().join(" ");
                    hits.push(Hit { rule, place, file: "", line: word.line, phrase });
                }
            }
        }
    }

    fn rust(&self, source: &str, first_line: usize, hits: &mut Vec<Hit<'_>>) {
        let tokens = rust::tokens(source);
        for block in rust::comment_blocks(&tokens) {
            self.markdown(block.lines.iter().copied(), first_line + block.line - 1, block.is_doc, hits);
        }
        let mut seen: Vec<&str> = Vec::new();
        for Token { kind, text, line } in tokens {
            let line = first_line + line - 1;
            match kind {
                Kind::String => self.search(&literal_words(text, line), Place::Text, hits),
                // Each name once a file: how often it is used is no news.
                Kind::Name if !seen.contains(&text) => {
                    seen.push(text);
                    self.search(&name_words(text, line), Place::Name, hits);
                }
                _ => {}
            }
        }
    }

    fn markdown<'a>(
        &self,
        lines: impl Iterator<Item = &'a str> + Clone,
        first_line: usize,
        is_rustdoc: bool,
        hits: &mut Vec<Hit<'_>>,
    ) {
        let mut prose = String::new();
        let mut code = String::new();
        for (line, kind) in lines.clone().zip(markdown::line_kinds(lines, is_rustdoc)) {
            match kind {
                LineKind::Text | LineKind::Table => prose.push_str(line),
                LineKind::Code(true) => code.push_str(line),
                LineKind::Code(false) | LineKind::Fence => {}
            }
            prose.push('\n');
            code.push('\n');
        }
        self.search(&prose_words(&prose, first_line), Place::Text, hits);
        if !code.trim().is_empty() {
            self.rust(&code, first_line, hits);
        }
    }

    /// Comments from `#` on, at the start of a line or after a space.
    fn hash(&self, text: &str, hits: &mut Vec<Hit<'_>>) {
        let comment = |line: &str| {
            let start = if line.starts_with('#') { Some(0) } else { line.find(" #") };
            start.map_or(String::new(), |start| line[start..].trim_start_matches([' ', '#']).to_owned())
        };
        let comments = text.lines().map(comment).collect::<Vec<_>>().join("\n");
        self.search(&prose_words(&comments, 1), Place::Text, hits);
    }
}

/// The words of a comment or of Markdown, without code, quotations, addresses and hidden remarks.
fn prose_words(text: &str, first_line: usize) -> Vec<Word> {
    // What ends a clause, and is no word.
    const CUT: char = '\u{1}';
    let mut text = markdown::blank_code_spans(text, CUT);
    for (open, close) in [("<!--", "-->"), ("](", ")"), ("\"", "\""), ("\u{201c}", "\u{201d}")] {
        text = blank_between(&text, open, close, CUT);
    }
    let address = |line: &str| match line.find("https://").or_else(|| line.find("http://")) {
        Some(start) => {
            let length = line[start..].find(char::is_whitespace).unwrap_or(line.len() - start);
            format!("{}{CUT}{}", &line[..start], &line[start + length..])
        }
        None => line.to_owned(),
    };
    let text = text.split('\n').map(address).collect::<Vec<_>>().join("\n");
    split_words(&text, first_line)
}

/// Blanks what lies between two marks of one paragraph, lines kept.
fn blank_between(text: &str, open: &str, close: &str, fill: char) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(open) {
        let after = &rest[start + open.len()..];
        let paragraph = after.find("\n\n").unwrap_or(after.len());
        let Some(length) = after[..paragraph].find(close) else {
            result.push_str(&rest[..start + open.len()]);
            rest = after;
            continue;
        };
        let end = start + open.len() + length + close.len();
        result.push_str(&rest[..start]);
        result.extend(rest[start..end].chars().map(|inner| if inner == '\n' { '\n' } else { fill }));
        rest = &rest[end..];
    }
    result.push_str(rest);
    result
}

/// The words of a string literal, without its placeholders and escapes.
fn literal_words(text: &str, first_line: usize) -> Vec<Word> {
    let joined = text.replace("\\\n", "\n");
    let escapes = ["\\t", "\\r", "\\\"", "\\'", "\\\\"];
    let joined = joined.replace("\\n", " ");
    let plain = escapes.iter().fold(joined, |text, escape| text.replace(escape, "\u{1}"));
    split_words(&blank_between(&plain, "{", "}", '\u{1}'), first_line)
}

/// The words of a name in snake or in camel case.
fn name_words(name: &str, line: usize) -> Vec<Word> {
    let mut spaced = String::new();
    let mut was_lower = false;
    for letter in name.chars() {
        if letter.is_uppercase() && was_lower {
            spaced.push(' ');
        }
        was_lower = letter.is_lowercase() || letter.is_ascii_digit();
        spaced.push(letter);
    }
    split_words(&spaced, line)
}

fn split_words(text: &str, first_line: usize) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let (mut line, mut starts_clause) = (first_line, true);
    let mut word = String::new();
    let mut characters = text.chars().peekable();
    let mut before = '\n';
    while let Some(next) = characters.next() {
        let follows = characters.peek().copied().unwrap_or('\n');
        if next.is_alphanumeric() {
            word.extend(next.to_lowercase());
            if !follows.is_alphanumeric() {
                words.push(Word { text: std::mem::take(&mut word), line, starts_clause });
                starts_clause = false;
            }
        } else if (next == '\'' || next == '\u{2019}') && before.is_alphanumeric() && follows == 's' {
            // A genitive: the word is the same.
            characters.next();
        } else if next == '\n' {
            line += 1;
            // An empty line ends a paragraph.
            starts_clause |= before == '\n';
        } else {
            let joins = next == '_' || next == '*' || (next == '-' && before.is_alphanumeric());
            starts_clause |= !(joins || next == ' ' || next == '\t' || next == '\r');
        }
        before = next;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phrases(path: &str, language: Language, text: &str) -> Vec<(usize, String)> {
        let file = SourceFile { path: path.to_owned(), language, text: text.to_owned() };
        find(&[file]).into_iter().map(|hit| (hit.line, hit.phrase)).collect()
    }

    fn in_markdown(text: &str) -> Vec<(usize, String)> {
        phrases("README.md", Language::Markdown, text)
    }

    fn in_rust(text: &str) -> Vec<(usize, String)> {
        phrases("src/lib.rs", Language::Rust, text)
    }

    fn hit(line: usize, phrase: &str) -> (usize, String) {
        (line, phrase.to_owned())
    }

    #[test]
    fn a_word_is_found_and_its_exception_is_not() {
        assert_eq!(in_markdown("A letter, a dead letter and a dead-letter topic."), [hit(1, "letter")]);
        assert_eq!(in_markdown("Letters and digits. Two letters."), [hit(1, "letters")]);
        assert_eq!(in_markdown("It was refused: connection refused."), [hit(1, "refused")]);
        assert_eq!(in_markdown("Five requests in flight; a flight."), [hit(1, "flight")]);
        assert_eq!(in_markdown("The server behind a proxy lags behind the end."), []);
        assert_eq!(in_markdown("The nobody's row."), [hit(1, "nobody")]);
    }

    #[test]
    fn a_phrase_may_wrap_but_not_cross_a_clause() {
        assert_eq!(in_markdown("It gets\non, it gets. On."), [hit(1, "gets on")]);
        assert_eq!(in_markdown("It gets\n\non"), []);
        assert_eq!(in_rust("/// It gets\n/// on.\n"), [hit(1, "gets on")]);
    }

    #[test]
    fn the_end_of_a_clause_can_be_part_of_a_phrase() {
        assert_eq!(in_markdown("Once it is in, it is in order."), [hit(1, "is in")]);
    }

    #[test]
    fn comments_strings_and_names_are_searched_once_each() {
        let source = "// for good\nlet letters = \"for good {letter}\"; letters; dead_letters; DeadLetter;";
        assert_eq!(in_rust(source), [hit(1, "for good"), hit(2, "for good"), hit(2, "letters")]);
    }

    #[test]
    fn code_quotations_and_addresses_are_not_searched() {
        assert_eq!(in_markdown("`letter` \"a letter\" [x](letter.md) https://x/letter <!-- letter -->"), []);
        assert_eq!(in_markdown("```text\nletter\n```\nletter"), [hit(4, "letter")]);
        assert_eq!(in_markdown("letter <!-- words: quoted -->"), []);
        assert_eq!(in_rust("let a = \"a letter\"; // words: quoted\n"), []);
    }

    #[test]
    fn comments_in_examples_are_searched() {
        assert_eq!(in_markdown("```rust\n// a letter\nlet x = 1;\n```\n"), [hit(2, "letter")]);
        assert_eq!(in_rust("/// ```\n/// // a letter\n/// ```\n"), [hit(2, "letter")]);
    }

    #[test]
    fn comments_of_other_languages_are_searched() {
        let hits = phrases("Cargo.toml", Language::Hash, "letter = 1 # a letter\n# for good\n");
        assert_eq!(hits, [hit(1, "letter"), hit(2, "for good")]);
    }

    #[test]
    fn parts_are_crates_or_folders() {
        assert_eq!(part("crates/kmr-core/src/lib.rs"), "crates/kmr-core");
        assert_eq!(part("docs/a/b.md"), "docs");
        assert_eq!(part("README.md"), "README.md");
    }
}
