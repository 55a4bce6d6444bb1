//! docs/log-events.md lists exactly the log events of the libraries: name, levels, fields, text.
//!
//! Every event is in a `telemetry.rs`, has a stable `name:`, and has no field that could hold a
//! payload or a secret.

use std::collections::{BTreeMap, BTreeSet};

use crate::style::Finding;
use crate::style::files::{Language, SourceFile};
use crate::style::rust::{self, Kind, Token};

/// The page with the table.
const PAGE: &str = "docs/log-events.md";
/// The libraries. Programs log for themselves.
const LIBRARIES: [&str; 3] = ["crates/kmr-core/src/", "crates/kmr-sinks/src/", "crates/kmr-status/src/"];
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
/// No event has such a field.
const FORBIDDEN: [&str; 9] =
    ["payload", "key", "header", "headers", "record", "row", "token", "password", "secret"];

/// One call of a macro.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Call {
    line: usize,
    level: String,
    name: Option<String>,
    fields: BTreeSet<String>,
    text: String,
}

/// A row of the table: all calls with one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Event {
    levels: BTreeSet<String>,
    fields: BTreeSet<String>,
    text: String,
}

/// Every difference between the table and the code.
pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut events: BTreeMap<String, Event> = BTreeMap::new();
    for file in files.iter().filter(|file| is_library(file)) {
        let calls = calls(&rust::tokens(&file.text));
        let is_telemetry = file.path.ends_with("/telemetry.rs");
        for call in calls {
            let mut add =
                |text: String| findings.push(Finding { file: file.path.clone(), line: call.line, text });
            if !is_telemetry {
                add("log events are in telemetry.rs alone".to_owned());
            }
            for field in call.fields.iter().filter(|field| FORBIDDEN.contains(&field.as_str())) {
                add(format!("field `{field}` could hold a payload or a secret"));
            }
            let Some(name) = call.name else {
                add("the log event has no name: \"…\"".to_owned());
                continue;
            };
            let event = events.entry(name).or_default();
            if !event.text.is_empty() && event.text != call.text {
                add(format!("another text than that of the event with the same name: {:?}", event.text));
            }
            event.levels.insert(call.level);
            event.fields.extend(call.fields);
            event.text = call.text;
        }
    }
    let table =
        files.iter().find(|file| file.path == PAGE).map_or_else(BTreeMap::new, |page| rows(&page.text));
    findings.extend(differences(&events, &table));
    findings
}

fn is_library(file: &SourceFile) -> bool {
    let is_test =
        file.path.contains("/tests/") || file.path.ends_with("/tests.rs") || file.path.contains("/testing/");
    file.language == Language::Rust
        && !is_test
        && LIBRARIES.iter().any(|library| file.path.starts_with(library))
}

fn differences(events: &BTreeMap<String, Event>, table: &BTreeMap<String, (usize, Event)>) -> Vec<Finding> {
    let finding = |line, text| Finding { file: PAGE.to_owned(), line, text };
    let row = |name: &str, event: &Event| {
        let list = |all: &BTreeSet<String>| all.iter().cloned().collect::<Vec<_>>().join(", ");
        format!("| `{name}` | {} | {} | {} |", list(&event.levels), list(&event.fields), event.text)
    };
    let missing = events.iter().filter(|(name, event)| table.get(*name).map(|(_, row)| row) != Some(event));
    let missing = missing.map(|(name, event)| {
        let line = table.get(name).map_or(1, |(line, _)| *line);
        finding(line, format!("the code has {}", row(name, event)))
    });
    let extra = table.iter().filter(|(name, _)| !events.contains_key(*name));
    let extra =
        extra.map(|(name, (line, _))| finding(*line, format!("`{name}`: no library has this log event")));
    missing.chain(extra).collect()
}

/// The calls of tracing's macros for events.
fn calls(tokens: &[Token<'_>]) -> Vec<Call> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let after: Vec<&str> = tokens[at..].iter().skip(1).take(5).map(|token| token.text).collect();
        let [":", ":", level, "!", "("] = after[..] else { continue };
        if token.text == "tracing" && token.kind == Kind::Name && LEVELS.contains(&level) {
            found.push(call(token.line, level, &tokens[at + 6..]));
        }
    }
    found
}

/// Reads the arguments, up to the bracket that closes them.
fn call(line: usize, level: &str, tokens: &[Token<'_>]) -> Call {
    let mut call = Call { line, level: level.to_owned(), ..Call::default() };
    let (mut depth, mut has_braces, mut argument) = (0_usize, false, Vec::new());
    for token in tokens {
        match (token.kind, token.text) {
            (Kind::LineComment | Kind::BlockComment, _) => continue,
            // Braces around all fields, which dots in the name of a field require.
            (Kind::Mark, "{") if depth == 0 && argument.is_empty() => {
                has_braces = true;
                continue;
            }
            (Kind::Mark, "}") if depth == 0 && has_braces => {
                has_braces = false;
                continue;
            }
            (Kind::Mark, "(" | "[" | "{") => depth += 1,
            (Kind::Mark, ")" | "]" | "}") if depth == 0 => break,
            (Kind::Mark, ")" | "]" | "}") => depth -= 1,
            (Kind::Mark, ",") if depth == 0 => {
                add_argument(&mut call, &argument);
                argument.clear();
                continue;
            }
            _ => {}
        }
        argument.push(*token);
    }
    add_argument(&mut call, &argument);
    call
}

fn add_argument(call: &mut Call, argument: &[Token<'_>]) {
    match argument {
        [] => {}
        [text] if text.kind == Kind::String => call.text = one_line(text.text),
        [key, colon, value] if colon.text == ":" && value.kind == Kind::String => {
            if key.text == "name" {
                call.name = Some(value.text.to_owned());
            }
        }
        _ => {
            let path = argument.iter().skip_while(|token| matches!(token.text, "%" | "?"));
            let path = path.take_while(|token| token.kind == Kind::Name || token.text == ".");
            call.fields.insert(path.map(|token| token.text).collect());
        }
    }
}

/// A string literal without its escaped line breaks.
fn one_line(text: &str) -> String {
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start())
}

/// The rows of the table, by the event's name.
fn rows(page: &str) -> BTreeMap<String, (usize, Event)> {
    let list = |cell: &str| -> BTreeSet<String> {
        cell.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
    };
    let mut rows = BTreeMap::new();
    for (index, line) in page.lines().enumerate() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", name, levels, fields, text, ""] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        let event = Event { levels: list(levels), fields: list(fields), text: text.to_owned() };
        rows.insert(name.to_owned(), (index + 1, event));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str =
        "fn f() { tracing::warn!(name: \"kmr.a\", %stage, a.b = x(1, 2), ?wait, \"text, \\\n   more\"); }";
    const TABLE: &str = "| `kmr.a` | warn | a.b, stage, wait | text, more |";

    fn found(path: &str, code: &str, page: &str) -> Vec<String> {
        let file = |path: &str, language, text: &str| SourceFile {
            path: path.to_owned(),
            language,
            text: text.to_owned(),
        };
        let files = [file(path, Language::Rust, code), file(PAGE, Language::Markdown, page)];
        check(&files).into_iter().map(|finding| finding.text).collect()
    }

    #[test]
    fn the_table_is_compared_with_the_code() {
        let telemetry = "crates/kmr-core/src/telemetry.rs";
        assert_eq!(found(telemetry, CODE, TABLE), Vec::<String>::new());
        assert_eq!(found(telemetry, CODE, ""), [format!("the code has {TABLE}")]);
        let other = TABLE.replace("warn", "info");
        assert_eq!(found(telemetry, CODE, &other).len(), 1);
        assert_eq!(found(telemetry, "", TABLE), ["`kmr.a`: no library has this log event"]);
        let braces = CODE.replace("%stage, a.b = x(1, 2), ?wait", "{ %stage, a.b = x(1, 2), ?wait }");
        assert_eq!(found(telemetry, &braces, TABLE), Vec::<String>::new());
        let both = format!("{CODE} fn g() {{ tracing::debug!(name: \"kmr.a\", \"text, more\"); }}");
        assert_eq!(found(telemetry, &both, &TABLE.replace("warn", "debug, warn")), Vec::<String>::new());
    }

    #[test]
    fn events_need_a_name_and_a_place_and_have_no_payload() {
        let telemetry = "crates/kmr-sinks/src/kafka/telemetry.rs";
        assert_eq!(
            found(telemetry, "tracing::info!(x, \"text\");", ""),
            ["the log event has no name: \"…\""]
        );
        let code = "tracing::info!(name: \"kmr.a\", payload = 1, \"text\");";
        let page = "| `kmr.a` | info | payload | text |";
        assert_eq!(found(telemetry, code, page), ["field `payload` could hold a payload or a secret"]);
        assert_eq!(found("crates/kmr-core/src/a.rs", CODE, TABLE), ["log events are in telemetry.rs alone"]);
        for path in ["crates/kmr-core/src/a/tests.rs", "crates/kmr-cli/src/a.rs"] {
            assert_eq!(found(path, CODE, ""), Vec::<String>::new(), "{path}");
        }
    }
}
