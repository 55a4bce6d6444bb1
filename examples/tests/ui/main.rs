//! Compile-fail tests of kmr-sinks: rows that are none, with the compiler's messages.
//!
//! They are here because a case needs kmr-core, kmr-sinks and serde, as a program does. How they
//! work: see `tests/ui` of kmr-core.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test outside of `#[test]` functions"
)]

#[path = "../../../crates/kmr-core/tests/ui/harness.rs"]
mod harness;

use std::path::Path;

use self::harness::{Extern, builds_of, cases, compile, problem};

/// The last builds of the libraries that belong together: those with which `pass` compiles.
fn libraries(case: &Path) -> Vec<Extern> {
    let (cores, serdes) = (builds_of("kmr_core"), builds_of("serde"));
    let mut output = String::new();
    for sinks in builds_of("kmr_sinks") {
        for (core, serde) in cores.iter().flat_map(|core| serdes.iter().map(move |serde| (core, serde))) {
            let libraries =
                vec![("kmr_sinks", sinks.clone()), ("kmr_core", core.clone()), ("serde", serde.clone())];
            let errors = compile(case, &libraries);
            if errors.is_empty() {
                return libraries;
            }
            output = errors.iter().map(|error| error.rendered.as_str()).collect();
        }
    }
    panic!("{} compiles with no builds of the libraries:\n{output}", case.display());
}

#[test]
fn rows_that_are_none_are_rejected_with_what_to_write() {
    let passes = cases("pass");
    let [derives] = &passes[..] else { panic!("one case that passes: {passes:?}") };
    let libraries = libraries(derives);
    let cases = cases("fail");
    assert!(cases.len() > 2, "only {} cases were found", cases.len());
    let failed: Vec<String> = cases.iter().filter_map(|case| problem(case, &libraries)).collect();
    assert!(failed.is_empty(), "{} of {} cases failed\n\n{}", failed.len(), cases.len(), failed.join("\n\n"));
}
