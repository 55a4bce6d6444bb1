//! Files of a crate do not import each other in a circle, beyond what [`LIMITS`] allows.
//!
//! An import is a path that starts with `crate`, `super` or `self`, in a `use` or anywhere else in
//! the code, and leads to another file of the crate. What is compiled for tests only is left out,
//! and so is the crate's root file, which knows all others. A path that ends at the root
//! (`crate::Record`) counts for the file that the root has the name from.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::style::Finding;
use crate::style::files::{Language, SourceFile};
use crate::style::rust::{self, Kind, Token};

/// What a crate may have.
struct Limit {
    package: &'static str,
    /// A folder of `src` in which files may import each other: one thing, split over several files.
    folder: Option<&'static str>,
    /// Files in the largest circle elsewhere. 0 is the aim.
    largest: usize,
}

/// Crates that are not named here may have no circle.
const LIMITS: [Limit; 1] = [
    // The coordinator is one struct over twelve files.
    Limit { package: "kmr-core", folder: Some("graph/coordinator/"), largest: 0 },
];

/// Every circle that is too large.
pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    check_with(&LIMITS, files)
}

fn check_with(limits: &[Limit], files: &[SourceFile]) -> Vec<Finding> {
    let mut packages: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.language == Language::Rust) {
        let inner = file.path.strip_prefix("crates/").and_then(|path| path.split_once("/src/"));
        if let Some((package, path)) = inner {
            packages.entry(package).or_default().insert(path, &file.text);
        }
    }
    let limit = |package: &str| limits.iter().find(|limit| limit.package == package);
    let check = |(package, sources)| check_package(package, sources, limit(package));
    packages.iter().flat_map(|(package, sources)| check((*package, sources))).collect()
}

fn check_package(package: &str, sources: &BTreeMap<&str, &str>, limit: Option<&Limit>) -> Vec<Finding> {
    let folder = limit.and_then(|limit| limit.folder);
    let largest = limit.map_or(0, |limit| limit.largest);
    let imports = imports(sources);
    let is_allowed = |circle: &Vec<&str>| {
        circle.len() <= largest
            || folder.is_some_and(|folder| circle.iter().all(|file| file.starts_with(folder)))
    };
    let too_large = circles(&imports).into_iter().filter(|circle| !is_allowed(circle));
    let finding = |circle: Vec<&str>| {
        let way = shortest_way_round(&imports, &circle);
        let text = format!(
            "{} files import each other in a circle: {}; the shortest way round is {}",
            circle.len(),
            circle.join(", "),
            way.join(" -> "),
        );
        let line = imports.get(way[0]).and_then(|to| to.get(way[1])).copied().unwrap_or(1);
        Finding { file: format!("crates/{package}/src/{}", way[0]), line, text }
    };
    too_large.map(finding).collect()
}

/// For each file the files that it imports, with the line of the first import.
type Imports<'a> = BTreeMap<&'a str, BTreeMap<&'a str, usize>>;

/// A module's path from the root.
type Module = Vec<String>;

fn imports<'a>(sources: &BTreeMap<&'a str, &'a str>) -> Imports<'a> {
    let scans: BTreeMap<&str, Scan> =
        sources.iter().map(|(path, source)| (*path, Scan::new(module(path), source))).collect();
    let for_tests: Vec<&Module> = scans.values().flat_map(|scan| &scan.test_modules).collect();
    let is_for_tests = |path: &str| {
        let module = module(path);
        scans[path].is_for_tests || for_tests.iter().any(|test| module.starts_with(test))
    };
    let files: HashMap<Module, &'a str> =
        sources.keys().filter(|path| !is_for_tests(path)).map(|path| (module(path), *path)).collect();
    let exports = files.get(&Module::new()).map(|root| &scans[root].exports);
    let mut imports = Imports::new();
    for (from, path) in &files {
        let edges = imports.entry(*path).or_default();
        for import in scans[path].imports.iter().filter(|_| !from.is_empty()) {
            for to in targets(&files, exports, &import.path, 4) {
                if to != *path && !module(to).is_empty() {
                    edges.entry(to).or_insert(import.line);
                }
            }
        }
    }
    imports
}

/// The file that has what a path names; several where the root exports a name from several.
fn targets<'a>(
    files: &HashMap<Module, &'a str>,
    exports: Option<&Vec<Export>>,
    path: &[String],
    depth: usize,
) -> Vec<&'a str> {
    let longest = (1..=path.len()).rev().find_map(|length| files.get(&path[..length]));
    match (longest, path.first(), exports) {
        (Some(file), _, _) => vec![file],
        (None, Some(name), Some(exports)) if depth > 0 => {
            let of_name = exports.iter().filter(|export| export.name == *name);
            of_name.flat_map(|export| targets(files, Some(exports), &export.path, depth - 1)).collect()
        }
        _ => Vec::new(),
    }
}

/// The module of a file below `src`.
fn module(path: &str) -> Module {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let mut parts: Module = path.split('/').map(str::to_owned).collect();
    let is_root = parts.len() == 1 && parts[0] == "main";
    if is_root || parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

/// A path from the crate's root.
#[derive(Debug, PartialEq, Eq)]
struct Import {
    path: Module,
    line: usize,
}

/// A name that a file re-exports.
struct Export {
    name: String,
    path: Module,
}

/// What one file imports.
struct Scan {
    imports: Vec<Import>,
    exports: Vec<Export>,
    /// Modules in files of their own that are declared for tests only.
    test_modules: Vec<Module>,
    is_for_tests: bool,
}

impl Scan {
    fn new(module: Module, source: &str) -> Self {
        let all = rust::tokens(source);
        let code =
            all.into_iter().filter(|token| !matches!(token.kind, Kind::LineComment | Kind::BlockComment));
        let mut scanner = Scanner {
            tokens: code.collect(),
            at: 0,
            depth: 0,
            module,
            inline: Vec::new(),
            scan: Self {
                imports: Vec::new(),
                exports: Vec::new(),
                test_modules: Vec::new(),
                is_for_tests: false,
            },
        };
        while scanner.at < scanner.tokens.len() {
            scanner.step();
        }
        scanner.scan
    }
}

struct Scanner<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    /// Braces that are open.
    depth: usize,
    module: Module,
    /// Modules in braces, with the depth outside of each.
    inline: Vec<(String, usize)>,
    scan: Scan,
}

impl Scanner<'_> {
    fn text(&self, at: usize) -> &str {
        match self.tokens.get(at) {
            Some(token) if token.kind != Kind::String => token.text,
            _ => "",
        }
    }

    fn is_path_separator(&self, at: usize) -> bool {
        self.text(at) == ":" && self.text(at + 1) == ":"
    }

    fn step(&mut self) {
        match self.text(self.at) {
            "#" => self.attribute(),
            "{" => self.depth += 1,
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                if self.inline.last().is_some_and(|(_, outside)| *outside == self.depth) {
                    self.inline.pop();
                }
            }
            "mod" if self.text(self.at + 2) == "{" => {
                self.inline.push((self.text(self.at + 1).to_owned(), self.depth));
            }
            "use" => {
                let (line, is_public) = (self.tokens[self.at].line, self.is_public());
                self.at += 1;
                self.use_tree(&[], line, is_public);
            }
            "crate" | "super" | "self" if self.is_path_separator(self.at + 1) => self.path(),
            _ => {}
        }
        self.at += 1;
    }

    /// Whether `pub`, or `pub(…)`, precedes.
    fn is_public(&self) -> bool {
        self.at > 0 && matches!(self.text(self.at - 1), "pub" | ")")
    }

    /// An attribute; an item that is compiled for tests only is skipped with it.
    fn attribute(&mut self) {
        let is_inner = self.text(self.at + 1) == "!";
        let open = self.at + 1 + usize::from(is_inner);
        if self.text(open) != "[" {
            return;
        }
        let close = self.closing(open);
        let is_for_tests = self.text(open + 1) == "cfg" && self.is_for_tests(open, close);
        self.at = close;
        if is_for_tests && is_inner {
            self.scan.is_for_tests |= self.depth == 0;
        } else if is_for_tests {
            self.skip_item();
        }
    }

    /// `test`, or the feature `testing`, alone or as one of several; not what is compiled without
    /// them.
    fn is_for_tests(&self, open: usize, close: usize) -> bool {
        let mut tokens = self.tokens[open..close].iter();
        let mut names = tokens.clone().filter(|token| token.kind == Kind::Name);
        !names.any(|token| token.text == "not")
            && tokens.any(|token| match token.kind {
                Kind::Name => token.text == "test",
                Kind::String => token.text == "testing",
                _ => false,
            })
    }

    /// The token that closes the bracket at `open`.
    fn closing(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for at in open..self.tokens.len() {
            match self.text(at) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => {
                    depth -= 1;
                    if depth == 0 {
                        return at;
                    }
                }
                _ => {}
            }
        }
        self.tokens.len().saturating_sub(1)
    }

    /// Leaves `at` on the last token of the item, the field or the statement that follows.
    fn skip_item(&mut self) {
        let mut at = self.at + 1;
        let mut has_body = false;
        let mut is_item = false;
        while at < self.tokens.len() {
            match self.text(at) {
                "fn" | "mod" | "impl" | "struct" | "enum" | "trait" | "macro_rules" if !is_item => {
                    (is_item, has_body) = (true, true);
                    if self.text(at) == "mod" && self.text(at + 2) == ";" {
                        let mut module = self.here();
                        module.push(self.text(at + 1).to_owned());
                        self.scan.test_modules.push(module);
                    }
                }
                "const" if matches!(self.text(at + 1), "fn" | "unsafe" | "async" | "extern") => {}
                "use" | "const" | "static" | "type" | "let" => is_item = true,
                "{" if has_body => {
                    self.at = self.closing(at);
                    return;
                }
                "(" | "[" | "{" => at = self.closing(at),
                ";" => break,
                "," if !is_item => break,
                // The end of what surrounds a last field.
                "}" | ")" | "]" => {
                    at -= 1;
                    break;
                }
                _ => {}
            }
            at += 1;
        }
        self.at = at;
    }

    /// The module at this place.
    fn here(&self) -> Module {
        let inline = self.inline.iter().map(|(name, _)| name.clone());
        self.module.iter().cloned().chain(inline).collect()
    }

    /// A path in the code.
    fn path(&mut self) {
        let is_visibility = self.at > 1 && self.text(self.at - 1) == "in" && self.text(self.at - 2) == "(";
        let line = self.tokens[self.at].line;
        let mut names = vec![self.text(self.at).to_owned()];
        while self.is_path_separator(self.at + 1) && self.tokens.get(self.at + 3).is_some_and(is_name) {
            self.at += 3;
            names.push(self.text(self.at).to_owned());
        }
        if !is_visibility {
            self.import(&names, line);
        }
    }

    /// A tree of names after `use`; leaves `at` on the token after it.
    fn use_tree(&mut self, before: &[String], line: usize, is_public: bool) {
        let mut names = before.to_vec();
        loop {
            match self.text(self.at) {
                ":" => self.at += 1,
                "{" => {
                    self.at += 1;
                    while !matches!(self.text(self.at), "}" | ";") && self.at < self.tokens.len() {
                        let start = self.at;
                        self.use_tree(&names, line, is_public);
                        // Past a comma, or past something that only a macro can mean.
                        self.at += usize::from(self.text(self.at) == "," || self.at == start);
                    }
                    self.at += 1;
                    return;
                }
                _ if !self.tokens.get(self.at).is_some_and(|token| is_name(token) || token.text == "*") => {
                    break;
                }
                "as" => {
                    self.at += 1;
                    let renamed = self.text(self.at).to_owned();
                    self.at += 1;
                    return self.used(&names, Some(renamed), line, is_public);
                }
                name => {
                    names.push(name.to_owned());
                    self.at += 1;
                }
            }
        }
        self.used(&names, None, line, is_public);
    }

    fn used(&mut self, names: &[String], renamed: Option<String>, line: usize, is_public: bool) {
        if names.is_empty() {
            return;
        }
        self.import(names, line);
        let own = || names.last().filter(|name| *name != "self").or(names.iter().rev().nth(1)).cloned();
        if is_public && let Some(name) = renamed.or_else(own) {
            // In a root a name without `crate` before it is a module of its own, or another crate.
            let path = self.absolute(names).unwrap_or_else(|| names.to_vec());
            self.scan.exports.push(Export { name, path });
        }
    }

    fn import(&mut self, names: &[String], line: usize) {
        if let Some(path) = self.absolute(names) {
            self.scan.imports.push(Import { path, line });
        }
    }

    /// The path from the crate's root; `None` when it does not start with `crate`, `super` or
    /// `self`.
    fn absolute(&self, names: &[String]) -> Option<Module> {
        let mut path = match names.first()?.as_str() {
            "crate" => Module::new(),
            "self" | "super" => self.here(),
            _ => return None,
        };
        for name in names {
            match name.as_str() {
                "crate" | "self" | "*" => {}
                "super" => drop(path.pop()),
                _ => path.push(name.clone()),
            }
        }
        Some(path)
    }
}

fn is_name(token: &Token<'_>) -> bool {
    token.kind == Kind::Name
}

/// Groups of files that reach each other, the largest first (Tarjan's strongly connected
/// components).
fn circles<'a>(imports: &Imports<'a>) -> Vec<Vec<&'a str>> {
    let mut search =
        Search { imports, index: HashMap::new(), low: HashMap::new(), stack: Vec::new(), found: Vec::new() };
    for file in imports.keys() {
        if !search.index.contains_key(file) {
            search.visit(file);
        }
    }
    search.found.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    search.found
}

struct Search<'a, 'i> {
    imports: &'i Imports<'a>,
    index: HashMap<&'a str, usize>,
    low: HashMap<&'a str, usize>,
    stack: Vec<&'a str>,
    found: Vec<Vec<&'a str>>,
}

impl<'a> Search<'a, '_> {
    fn visit(&mut self, file: &'a str) {
        let number = self.index.len();
        self.index.insert(file, number);
        self.low.insert(file, number);
        let height = self.stack.len();
        self.stack.push(file);
        let imports = self.imports;
        for next in imports.get(file).into_iter().flat_map(BTreeMap::keys).copied() {
            if !self.index.contains_key(next) {
                self.visit(next);
                self.lower(file, self.low[next]);
            } else if self.stack.contains(&next) {
                self.lower(file, self.index[next]);
            }
        }
        if self.low[file] == number {
            let mut circle = self.stack.split_off(height);
            circle.sort_unstable();
            self.found.extend((circle.len() > 1).then_some(circle));
        }
    }

    fn lower(&mut self, file: &'a str, to: usize) {
        let low = self.low.entry(file).or_insert(to);
        *low = to.min(*low);
    }
}

/// The shortest path from a file of the circle back to itself.
fn shortest_way_round<'a>(imports: &Imports<'a>, circle: &[&'a str]) -> Vec<&'a str> {
    let ways = circle.iter().filter_map(|start| way_back(imports, circle, start));
    ways.min_by_key(Vec::len).unwrap_or_else(|| circle.to_vec())
}

fn way_back<'a>(imports: &Imports<'a>, circle: &[&'a str], start: &'a str) -> Option<Vec<&'a str>> {
    let mut seen = BTreeSet::new();
    let mut ways = std::collections::VecDeque::from([vec![start]]);
    while let Some(way) = ways.pop_front() {
        let last = way[way.len() - 1];
        for next in imports.get(last)?.keys().filter(|next| circle.contains(next)) {
            let longer = way.iter().copied().chain([*next]).collect();
            if *next == start {
                return Some(longer);
            }
            if seen.insert(*next) {
                ways.push_back(longer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(package: &str, sources: &[(&str, &str)]) -> Vec<Finding> {
        let file = |(path, text): &(&str, &str)| SourceFile {
            path: format!("crates/{package}/src/{path}"),
            language: Language::Rust,
            text: (*text).to_owned(),
        };
        let limits = [
            Limit { package: "one-room", folder: Some("graph/coordinator/"), largest: 0 },
            Limit { package: "two-files", folder: None, largest: 2 },
        ];
        check_with(&limits, &sources.iter().map(file).collect::<Vec<_>>())
    }

    fn is_circle(sources: &[(&str, &str)]) -> bool {
        !found("any", sources).is_empty()
    }

    #[test]
    fn imports_in_one_direction_are_good() {
        assert!(!is_circle(&[("a.rs", "use crate::b::B;"), ("b.rs", "use std::fmt; use crate::a_b;")]));
    }

    #[test]
    fn two_files_that_import_each_other_are_named() {
        let sources = [
            ("a.rs", "\nuse crate::b::B;"),
            ("b.rs", "fn f() { crate::a::g(); }"),
            ("c.rs", "use crate::a;"),
        ];
        let found = found("any", &sources);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].file.as_str(), found[0].line), ("crates/any/src/a.rs", 2));
        assert!(found[0].text.starts_with("2 files import each other in a circle: a.rs, b.rs;"));
        assert!(found[0].text.ends_with("a.rs -> b.rs -> a.rs"));
    }

    #[test]
    fn every_form_of_an_import_counts() {
        let other = ("c/b.rs", "use super::a::A;");
        for import in [
            "use crate::c::b::B;",
            "use crate::{c::{self, b::{B as X, Y}}};",
            "use super::b;",
            "pub(crate) use super::b::*;",
            "fn f(x: super::b::B) {}",
            "mod inner { use super::super::b::B; }",
        ] {
            assert!(is_circle(&[("c/a.rs", import), other]), "{import}");
        }
        assert!(is_circle(&[("c/mod.rs", "fn f() { self::a::f(); }"), ("c/a.rs", "use super::C;")]));
        assert!(is_circle(&[("c.rs", "use self::a::A;"), ("c/a.rs", "use super::C;")]));
    }

    #[test]
    fn what_is_no_import_does_not_count() {
        let other = ("c/b.rs", "use super::a::A;");
        for text in [
            "// use crate::c::b::B;",
            "let x = \"crate::c::b\";",
            "pub(in crate::c::b) fn f() {}",
            "mod b { fn f(x: super::B) {} }",
            "use other::c::b;",
        ] {
            assert!(!is_circle(&[("c/a.rs", text), other]), "{text}");
        }
    }

    #[test]
    fn tests_are_left_out() {
        let other = ("b.rs", "use crate::a::A;");
        for text in [
            "#[cfg(test)]\nmod tests { use crate::b::B; }",
            "#[cfg(any(test, feature = \"testing\"))]\nuse crate::b::{B, C};",
            "#[cfg(test)]\n#[must_use]\npub(crate) fn f<A, B>(a: A) -> [u8; 2] { crate::b::f() }",
            "struct A { #[cfg(test)] b: crate::b::B }",
            "#![cfg(test)]\nuse crate::b::B;",
        ] {
            assert!(!is_circle(&[("a.rs", text), other]), "{text}");
            assert!(is_circle(&[("a.rs", &text.replace("test", "unix")), other]), "{text}");
        }
        let sources = [
            ("lib.rs", "#[cfg(test)]\nmod a;\nmod b;"),
            ("a/mod.rs", ""),
            ("a/c.rs", "use crate::b;"),
            ("b.rs", "use crate::a::c;"),
        ];
        assert!(!is_circle(&sources));
    }

    #[test]
    fn a_name_of_the_root_counts_for_the_file_that_has_it() {
        let with_root = |root| [("lib.rs", root), ("a.rs", "use crate::B;"), ("b.rs", "use crate::a::A;")];
        assert!(is_circle(&with_root("mod a; mod b; pub use b::{B, C};")));
        assert!(is_circle(&with_root("mod a; mod b; pub use crate::b::X as B;")));
        assert!(!is_circle(&with_root("mod a; mod b; pub use a::B;")));
    }

    #[test]
    fn a_folder_can_be_one_thing_in_several_files() {
        let inside =
            [("graph/coordinator/a.rs", "use super::b;"), ("graph/coordinator/b.rs", "use super::a;")];
        assert!(found("one-room", &inside).is_empty());
        assert_eq!(found("any", &inside).len(), 1);
        let outside =
            [("graph/coordinator/a.rs", "use crate::b;"), ("b.rs", "use crate::graph::coordinator::a;")];
        assert_eq!(found("one-room", &outside).len(), 1);
    }

    #[test]
    fn a_circle_can_be_allowed_by_its_size() {
        let two = [("a.rs", "use crate::b;"), ("b.rs", "use crate::a;")];
        assert!(found("two-files", &two).is_empty());
        let three = [("a.rs", "use crate::b;"), ("b.rs", "use crate::c;"), ("c.rs", "use crate::a;")];
        assert_eq!(found("two-files", &three).len(), 1);
    }
}
