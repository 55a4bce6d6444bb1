//! Links between documents lead to files and headings that exist.
//!
//! Checked are relative links in Markdown and in rustdoc, links by label, and the documents that a
//! comment names by path. Addresses on the web are not: a check without a network cannot.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::style::Finding;
use crate::style::files::{Language, SourceFile};
use crate::style::markdown::{self, LineKind};
use crate::style::rust;

/// Every link that leads nowhere.
pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    let targets = Targets::new(files);
    let mut findings = Vec::new();
    for file in files {
        let wrong = match file.language {
            Language::Markdown => targets.check_markdown(&file.path, &file.text),
            Language::Rust => targets.check_rust(&file.path, &file.text),
            Language::Hash => targets.check_mentions(&file.path, comments_after_hash(&file.text)),
            Language::Json | Language::Other => Vec::new(),
        };
        let finding = |(line, text)| Finding { file: file.path.clone(), line, text };
        findings.extend(wrong.into_iter().map(finding));
    }
    findings
}

/// A line and what is wrong there.
type Wrong = (usize, String);

/// What a link can lead to.
struct Targets<'a> {
    files: HashSet<&'a str>,
    folders: HashSet<&'a str>,
    /// The anchors of each Markdown file.
    anchors: HashMap<&'a str, HashSet<String>>,
}

impl<'a> Targets<'a> {
    fn new(files: &'a [SourceFile]) -> Self {
        let paths = || files.iter().map(|file| file.path.as_str());
        let above = |path: &'a str| path.match_indices('/').map(move |(at, _)| &path[..at]);
        let documents = files.iter().filter(|file| file.language == Language::Markdown);
        Self {
            files: paths().collect(),
            folders: paths().flat_map(above).collect(),
            anchors: documents.map(|file| (file.path.as_str(), anchors(&file.text))).collect(),
        }
    }

    fn check_markdown(&self, path: &str, text: &str) -> Vec<Wrong> {
        let links = links(&prose(text.lines(), false));
        let labels: BTreeSet<&str> = links.iter().filter_map(Link::defines).collect();
        let check = |link: &Link| match link {
            Link::Target { line, target } | Link::Definition { line, target, .. } => {
                self.objection(path, target).map(|why| (*line, why))
            }
            Link::Label { line, label } => {
                let is_known = labels.contains(label.as_str()) || label.contains("::");
                (!is_known).then(|| (*line, format!("no line defines the label [{label}]")))
            }
        };
        links.iter().filter_map(check).collect()
    }

    /// Links of rustdoc that lead to documents, and documents that comments name.
    fn check_rust(&self, path: &str, source: &str) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        for block in rust::comment_blocks(&rust::tokens(source)) {
            let number = |(line, why): Wrong| (line + block.line - 1, why);
            if block.is_doc {
                let links = links(&prose(block.lines.iter().copied(), true));
                let targets = links.iter().filter_map(Link::target);
                let documents = targets.filter(|(_, target)| target.contains(".md"));
                let check = |(line, target)| self.objection(path, target).map(|why| (line, why));
                wrong.extend(documents.filter_map(check).map(number));
            }
            wrong.extend(self.check_mentions(path, block.lines.iter().copied()).into_iter().map(number));
        }
        wrong
    }

    /// Documents that are named in passing, by their path from the root or from the file.
    fn check_mentions<'t>(&self, path: &str, lines: impl Iterator<Item = &'t str>) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        for (index, line) in lines.enumerate() {
            let is_of_path = |next: char| next.is_alphanumeric() || "/._-#".contains(next);
            for word in line.split(|next: char| !is_of_path(next)) {
                let word = word.trim_end_matches(['.', '#']);
                let file = word.split_once('#').map_or(word, |(file, _)| file);
                let is_document = file.ends_with(".md") && file.len() > 3 && !word.starts_with("//");
                // A link is checked as such.
                let is_link = line.contains(&format!("]({word}")) || line.contains("://");
                if is_document && !is_link && self.objection("", word).is_some() {
                    let why = self.objection(path, word).map(|why| (index + 1, why));
                    wrong.extend(why);
                }
            }
        }
        wrong
    }

    /// What is wrong with a link in the file `from`, if anything is.
    fn objection(&self, from: &str, target: &str) -> Option<String> {
        let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
        // An item of the crate whose documentation the README is.
        let is_item = target.contains("::") || (from.starts_with("crates/") && is_name(target));
        if is_elsewhere || is_item {
            return None;
        }
        let (file, anchor) =
            target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
        let path = if file.is_empty() { from.to_owned() } else { resolve(from, file) };
        let is_folder = path.is_empty() || self.folders.contains(path.trim_end_matches('/'));
        if !self.files.contains(path.as_str()) && !is_folder {
            return Some(format!("{target}: there is no file {path}"));
        }
        let anchor = anchor.filter(|anchor| !anchor.is_empty())?;
        match self.anchors.get(path.as_str()) {
            Some(anchors) if anchors.contains(anchor) => None,
            Some(_) => Some(format!("{target}: {path} has no heading #{anchor}")),
            None if is_line_number(anchor) => None,
            None => Some(format!("{target}: {path} has no headings")),
        }
    }
}

fn is_name(target: &str) -> bool {
    target.starts_with(char::is_alphabetic)
        && target.chars().all(|next| next.is_alphanumeric() || next == '_')
}

fn is_line_number(anchor: &str) -> bool {
    anchor.strip_prefix('L').is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit()))
}

/// The path from the root that a link in `from` means.
fn resolve(from: &str, link: &str) -> String {
    let mut parts: Vec<&str> = match link.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => from.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev().collect(),
    };
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// A link, or a part of one.
#[derive(Debug, PartialEq, Eq)]
enum Link {
    /// `[text](target)`
    Target { line: usize, target: String },
    /// `[label]: target`
    Definition { line: usize, label: String, target: String },
    /// `[text][label]`
    Label { line: usize, label: String },
}

impl Link {
    fn defines(&self) -> Option<&str> {
        match self {
            Self::Definition { label, .. } => Some(label),
            _ => None,
        }
    }

    fn target(&self) -> Option<(usize, &str)> {
        match self {
            Self::Target { line, target } | Self::Definition { line, target, .. } => Some((*line, target)),
            Self::Label { .. } => None,
        }
    }
}

/// The text of a document, with empty lines in the place of code.
fn prose<'a>(lines: impl Iterator<Item = &'a str> + Clone, is_rustdoc: bool) -> String {
    let kinds = markdown::line_kinds(lines.clone(), is_rustdoc);
    let keep = |(line, kind)| if matches!(kind, LineKind::Text | LineKind::Table) { line } else { "" };
    lines.zip(kinds).map(keep).collect::<Vec<_>>().join("\n")
}

fn links(prose: &str) -> Vec<Link> {
    let text = markdown::blank_code_spans(prose, '`');
    let mut links = Vec::new();
    let mut start_of_line = 0;
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        let definition = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        if let Some((label, target)) = definition {
            let (label, target) = (label.to_lowercase(), first_word(target));
            links.push(Link::Definition { line: number, label, target });
        }
        for (at, _) in line.match_indices("](") {
            // The rest of the text: a long target may stand on the next line.
            let rest = &text[start_of_line + at + 2..];
            let target = first_word(&rest[..closing(rest)]);
            links.push(Link::Target { line: number, target });
        }
        for (at, _) in line.match_indices("][") {
            if let Some((label, _)) = line[at + 2..].split_once(']') {
                let label = label.to_lowercase();
                // Code in a label is an item of rustdoc's.
                if !label.is_empty() && !label.contains('`') {
                    links.push(Link::Label { line: number, label });
                }
            }
        }
        start_of_line += line.len() + 1;
    }
    links
}

/// The target without its title and its angle brackets.
fn first_word(target: &str) -> String {
    let word = target.split_whitespace().next().unwrap_or_default();
    word.trim_start_matches('<').trim_end_matches('>').to_owned()
}

/// The length up to the parenthesis that closes a target, which may have pairs of its own.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (at, next) in text.char_indices() {
        match next {
            '(' => depth += 1,
            ')' if depth == 0 => return at,
            ')' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// The anchors that GitHub gives to the headings, and those that are set by hand.
pub(crate) fn anchors(text: &str) -> HashSet<String> {
    let kinds = markdown::line_kinds(text.lines(), false);
    let mut anchors = HashSet::new();
    let mut used: HashMap<String, usize> = HashMap::new();
    for (line, _) in text.lines().zip(kinds).filter(|(_, kind)| *kind == LineKind::Text) {
        for attribute in ["id=\"", "name=\""] {
            let values = line.split(attribute).skip(1).filter_map(|rest| rest.split_once('"'));
            anchors.extend(values.map(|(value, _)| value.to_owned()));
        }
        let title = line.trim_start_matches('#');
        let level = line.len() - title.len();
        if (1..=6).contains(&level) && title.starts_with(' ') {
            let anchor = anchor(title.trim().trim_end_matches('#').trim_end());
            let count = used.entry(anchor.clone()).or_default();
            anchors.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
            *count += 1;
        }
    }
    anchors
}

/// Lower case, without punctuation, a hyphen for each space.
pub(crate) fn anchor(title: &str) -> String {
    // Of a link the text remains.
    let mut text = title.to_owned();
    while let Some(at) = text.find("](") {
        let end = at + 2 + closing(&text[at + 2..]);
        text.replace_range(at..(end + 1).min(text.len()), "");
    }
    let keep = |next: char| match next {
        ' ' => Some('-'),
        '-' | '_' => Some(next),
        _ => next.is_alphanumeric().then_some(next),
    };
    text.to_lowercase().chars().filter_map(keep).collect()
}

fn comments_after_hash(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.find('#').map_or("", |start| &line[start + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, language: Language, text: &str) -> SourceFile {
        SourceFile { path: path.to_owned(), language, text: text.to_owned() }
    }

    /// The lines with wrong links in the last of these, with a few files around it.
    fn wrong(path: &str, language: Language, text: &str) -> Vec<usize> {
        let guide =
            "# Guide to `kmr`: a_b\n\n## Two\n## Two\n<a id=\"by-hand\"></a>\n```\n# no heading\n```\n";
        let files = [
            file("docs/guide.md", Language::Markdown, guide),
            file("src/main.rs", Language::Rust, ""),
            file("docs/picture.svg", Language::Other, ""),
            file(path, language, text),
        ];
        check(&files).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn files_and_folders_exist_seen_from_the_document() {
        let good =
            "[a](docs/guide.md) ![b](docs/picture.svg) [c](docs/) [d](./src/main.rs#L3) [e](/docs/guide.md)";
        assert!(wrong("README.md", Language::Markdown, good).is_empty());
        assert!(wrong("docs/x.md", Language::Markdown, "[a](guide.md) [b](../src/main.rs)").is_empty());
        assert_eq!(wrong("docs/x.md", Language::Markdown, "\n[a](docs/guide.md)"), [2]);
        assert_eq!(wrong("README.md", Language::Markdown, "a\n[a long\ntext](gone.md)"), [3]);
    }

    #[test]
    fn anchors_are_those_that_github_makes() {
        let good = "[a](docs/guide.md#guide-to-kmr-a_b) [b](docs/guide.md#two-1) [c](docs/guide.md#by-hand)";
        assert!(wrong("README.md", Language::Markdown, good).is_empty());
        let bad =
            "[a](docs/guide.md#Two)\n[b](docs/guide.md#two-2)\n[c](docs/guide.md#no-heading)\n[d](#here)";
        assert_eq!(wrong("README.md", Language::Markdown, bad), [1, 2, 3, 4]);
        assert!(
            wrong("README.md", Language::Markdown, "# Here [x](docs/guide.md)!\n[a](#here-x)").is_empty()
        );
    }

    #[test]
    fn labels_are_defined_and_lead_somewhere() {
        assert!(wrong("README.md", Language::Markdown, "[a][x]\n\n[X]: docs/guide.md#two").is_empty());
        assert_eq!(wrong("README.md", Language::Markdown, "[a][x]\n\n[y]: docs/gone.md"), [1, 3]);
    }

    #[test]
    fn code_addresses_and_items_are_no_links_to_files() {
        let good = "`[a](gone.md)` [b](https://x/gone.md) [c](crate::Gone)\n```\n[d](gone.md)\n```\n";
        assert!(wrong("README.md", Language::Markdown, good).is_empty());
        assert!(wrong("crates/a/README.md", Language::Markdown, "[a](Consumer)").is_empty());
        assert_eq!(wrong("README.md", Language::Markdown, "[a](Consumer)"), [1]);
    }

    #[test]
    fn documents_that_comments_name_exist() {
        let good = "//! See docs/guide.md#two.\n// docs/guide.md, and [a](../docs/guide.md)\n";
        assert!(wrong("src/lib.rs", Language::Rust, good).is_empty());
        let bad = "//! a\n//! See docs/gone.md.\n\n/// [a](../docs/gone.md)\nlet x = \"docs/gone.md\"; // docs/guide.md#gone";
        assert_eq!(wrong("src/lib.rs", Language::Rust, bad), [2, 4, 5]);
        assert_eq!(wrong("Cargo.toml", Language::Hash, "a = 1 # docs/gone.md\nreadme = \"gone.md\""), [1]);
    }
}
