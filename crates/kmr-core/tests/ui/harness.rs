//! Compiles cases with rustc, and compares its errors with the expectations in them.
//!
//! The tests of kmr-core and those of the examples share it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// One error of the compiler.
pub(crate) struct CompilerError {
    /// The line of its first primary span.
    line: usize,
    /// Its message, labels and notes. Not the source that is shown with them, because it contains
    /// the expected phrases.
    text: String,
    pub(crate) rendered: String,
}

/// A library by its name, and the build that cases use.
pub(crate) type Extern = (&'static str, PathBuf);

/// The cases in a folder of this package's `tests/ui`.
pub(crate) fn cases(folder: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui").join(folder);
    let entries = std::fs::read_dir(&directory).expect("the directory of the cases");
    let paths = entries.map(|entry| entry.expect("a case").path());
    let mut cases: Vec<PathBuf> = paths.filter(|path| path.extension() == Some(OsStr::new("rs"))).collect();
    cases.sort();
    cases
}

/// The differences from the file's expectations. `None`: there are none.
pub(crate) fn problem(case: &Path, libraries: &[Extern]) -> Option<String> {
    let mut expected = expectations(case);
    assert!(!expected.is_empty(), "{} expects no error", case.display());
    let errors = compile(case, libraries);
    let mut wrong = Vec::new();
    for error in &errors {
        match expected.remove(&error.line) {
            None => wrong.push(format!("not expected on line {}", error.line)),
            Some(mut errors) => {
                let phrases = errors.remove(0);
                let missing = phrases.iter().filter(|phrase| !error.text.contains(phrase.as_str()));
                wrong.extend(missing.map(|phrase| format!("line {} does not contain: {phrase}", error.line)));
                if !errors.is_empty() {
                    expected.insert(error.line, errors);
                }
            }
        }
    }
    wrong.extend(expected.keys().map(|line| format!("no error on line {line}")));
    let output: String = errors.iter().map(|error| error.rendered.as_str()).collect();
    if std::env::var_os("KMR_UI_SHOW").is_some() {
        println!("== {}\n{output}", case.display());
    }
    (!wrong.is_empty())
        .then(|| format!("== {}\n!! {}\nthe compiler's output:\n{output}", case.display(), wrong.join("\n")))
}

/// The phrases that a file expects, by line and error.
fn expectations(case: &Path) -> BTreeMap<usize, Vec<Vec<String>>> {
    let source = std::fs::read_to_string(case).expect("a case");
    let lines = source.lines().enumerate();
    let marked = lines.filter_map(|(index, line)| Some((index + 1, line.split_once("//~")?.1)));
    let phrases = |text: &str| text.split(" | ").map(|phrase| phrase.trim().to_owned()).collect();
    marked.map(|(line, text)| (line, text.split(" || ").map(phrases).collect())).collect()
}

/// The errors of a case.
pub(crate) fn compile(case: &Path, libraries: &[Extern]) -> Vec<CompilerError> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    for (name, path) in libraries {
        let dependencies = path.parent().expect("the directory of the libraries");
        rustc.arg("--extern").arg(format!("{name}={}", path.display()));
        rustc.arg("-L").arg(format!("dependency={}", dependencies.display()));
    }
    let output = rustc
        .args([
            "--edition=2024",
            "--crate-type=lib",
            "--crate-name=case",
            "--emit=metadata",
            "--cap-lints=allow",
        ])
        .args(["--error-format=json", "-o"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("case.rmeta"))
        .arg(case)
        .output()
        .expect("rustc runs");
    let messages = String::from_utf8(output.stderr).expect("the compiler writes UTF-8");
    let parsed: Vec<Value> = messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let errors: Vec<CompilerError> = parsed.iter().filter_map(compiler_error).collect();
    assert_eq!(output.status.success(), errors.is_empty(), "{messages}");
    errors
}

/// An error that has a place. The summary at the end has none.
fn compiler_error(message: &Value) -> Option<CompilerError> {
    if message["level"] != "error" {
        return None;
    }
    let primary = message["spans"].as_array()?.iter().find(|span| span["is_primary"] == true)?;
    let line = usize::try_from(primary["line_start"].as_u64()?).ok()?;
    let mut text = String::new();
    add_texts(message, &mut text);
    Some(CompilerError { line, text, rendered: message["rendered"].as_str()?.to_owned() })
}

/// Adds the texts of a message, of the labels on its spans, and of the notes below it.
fn add_texts(message: &Value, text: &mut String) {
    let items = |key| message[key].as_array().into_iter().flatten();
    for part in items("spans").map(|span| &span["label"]).chain([&message["message"]]) {
        *text += part.as_str().unwrap_or_default();
        text.push('\n');
    }
    items("children").for_each(|note| add_texts(note, text));
}

/// The builds of a library, before this test and the last one first. They differ in their features.
pub(crate) fn builds_of(library: &str) -> Vec<PathBuf> {
    let test = std::env::current_exe().expect("the path of this test");
    let built = |path: &Path| path.metadata().and_then(|data| data.modified()).expect("the time of a build");
    let before = built(&test);
    let entries =
        std::fs::read_dir(test.parent().expect("a directory")).expect("the directory of the libraries");
    let paths = entries.map(|entry| entry.expect("a library").path());
    let name = |path: &Path| path.file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
    let prefix = format!("lib{library}-");
    let mut builds: Vec<PathBuf> = paths
        .filter(|path| name(path).starts_with(&prefix) && name(path).ends_with(".rlib"))
        .filter(|path| built(path) <= before)
        .collect();
    builds.sort_by_key(|path| std::cmp::Reverse(built(path)));
    assert!(!builds.is_empty(), "{library} is built before this test");
    builds
}
