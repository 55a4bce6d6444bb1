//! Files of a crate do not import each other in a circle, beyond what [`LIMITS`] allows.
//!
//! An import is a path that starts with `crate`, `super` or `self`, in a `use` or anywhere else in
//! the code, and leads to another file of the crate. What is compiled for tests only is left out,
//! and so is the crate's root file, which knows all others. A path that ends at the root
//! (`crate::Record`) counts for the file that the root has the name from.

mod scan;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use self::scan::{Export, Module, Scan};

use crate::style::Finding;
use crate::style::files::{Language, SourceFile};

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
mod tests;
