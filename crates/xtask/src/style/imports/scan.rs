//! What one file imports and re-exports: a scan of its tokens.

use crate::style::rust::{self, Kind, Token};

/// A module's path from the root.
pub(super) type Module = Vec<String>;

/// A path from the crate's root.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) path: Module,
    pub(super) line: usize,
}

/// A name that a file re-exports.
pub(super) struct Export {
    pub(super) name: String,
    pub(super) path: Module,
}

/// What one file imports.
pub(super) struct Scan {
    pub(super) imports: Vec<Import>,
    pub(super) exports: Vec<Export>,
    /// Modules in files of their own that are declared for tests only.
    pub(super) test_modules: Vec<Module>,
    pub(super) is_for_tests: bool,
}

impl Scan {
    pub(super) fn new(module: Module, source: &str) -> Self {
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
