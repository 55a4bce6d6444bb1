//! Compile-fail tests: strategies that must not compile, with the compiler's messages and their
//! places.
//!
//! Why not trybuild: it compares rustc's whole text, so each release of Rust breaks it, and it
//! builds kmr-core and librdkafka a second time. These tests compile each file of `fail/` with one
//! call of rustc, against the kmr-core that they are linked with (about 0.2 s a file). They compare
//! only key phrases and places:
//!
//! * A line that ends with `//~ one | two` has exactly one error, whose text (message, labels,
//!   notes) contains both phrases.
//! * There are no other errors: a mistake must not cause a second message somewhere else.
//!
//! `KMR_UI_SHOW=1 cargo test -p kmr-core --test ui -- --nocapture` prints the compiler's whole
//! output.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a test outside of `#[test]` functions")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// One error of the compiler.
struct CompilerError {
    /// The line of its first primary span.
    line: usize,
    /// Its message, labels and notes. Not the source that is shown with them, because it contains
    /// the expected phrases.
    text: String,
    rendered: String,
}

#[test]
fn invalid_strategies_are_rejected_at_the_stage_with_a_clear_message() {
    let cases = cases("fail");
    assert!(cases.len() > 20, "only {} cases were found", cases.len());
    let failed: Vec<String> = cases.iter().filter_map(|case| problem(case)).collect();
    assert!(failed.is_empty(), "{} of {} cases failed\n\n{}", failed.len(), cases.len(), failed.join("\n\n"));
}

#[test]
fn strategies_need_nothing_in_scope() {
    for case in cases("pass") {
        let errors = compile(&case);
        let texts: Vec<&str> = errors.iter().map(|error| error.rendered.as_str()).collect();
        assert!(errors.is_empty(), "{}\n{}", case.display(), texts.join("\n"));
    }
}

fn cases(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui").join(directory);
    let entries = std::fs::read_dir(&directory).expect("the directory of the cases");
    let paths = entries.map(|entry| entry.expect("a case").path());
    let mut cases: Vec<PathBuf> = paths.filter(|path| path.extension() == Some(OsStr::new("rs"))).collect();
    cases.sort();
    cases
}

/// The differences from the file's expectations. `None`: there are none.
fn problem(case: &Path) -> Option<String> {
    let mut expected = expectations(case);
    assert!(!expected.is_empty(), "{} expects no error", case.display());
    let errors = compile(case);
    let mut wrong = Vec::new();
    for error in &errors {
        match expected.remove(&error.line) {
            None => wrong.push(format!("not expected on line {}", error.line)),
            Some(phrases) => {
                let missing = phrases.iter().filter(|phrase| !error.text.contains(phrase.as_str()));
                wrong.extend(missing.map(|phrase| format!("line {} does not contain: {phrase}", error.line)));
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

/// The phrases that a file expects, by line.
fn expectations(case: &Path) -> BTreeMap<usize, Vec<String>> {
    let source = std::fs::read_to_string(case).expect("a case");
    let lines = source.lines().enumerate();
    let marked = lines.filter_map(|(index, line)| Some((index + 1, line.split_once("//~")?.1)));
    let phrases = |text: &str| text.split(" | ").map(|phrase| phrase.trim().to_owned()).collect();
    marked.map(|(line, text)| (line, phrases(text))).collect()
}

fn compile(case: &Path) -> Vec<CompilerError> {
    let library = library();
    let dependencies = library.parent().expect("the directory of the libraries");
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args([
            "--edition=2024",
            "--crate-type=lib",
            "--crate-name=case",
            "--emit=metadata",
            "--cap-lints=allow",
        ])
        .args(["--error-format=json", "-o"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("case.rmeta"))
        .arg("--extern")
        .arg(format!("kmr_core={}", library.display()))
        .arg("-L")
        .arg(format!("dependency={}", dependencies.display()))
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

/// The kmr-core that this test is linked with: the last one that was built before it, with any
/// features.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let built = |path: &Path| path.metadata().and_then(|data| data.modified()).expect("the time of a build");
    let before = built(&test);
    let entries =
        std::fs::read_dir(test.parent().expect("a directory")).expect("the directory of the libraries");
    let paths = entries.map(|entry| entry.expect("a library").path());
    let name = |path: &Path| path.file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
    paths
        .filter(|path| name(path).starts_with("libkmr_core-") && name(path).ends_with(".rlib"))
        .filter(|path| built(path) <= before)
        .max_by_key(|path| built(path))
        .expect("kmr-core is built before its tests")
}
