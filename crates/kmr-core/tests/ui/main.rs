//! Compile-fail tests: strategies that must not compile, with the compiler's messages and their
//! places.
//!
//! Why not trybuild: it compares rustc's whole text, so each release of Rust breaks it, and it
//! builds kmr-core and librdkafka a second time. These tests compile each file of `fail/` with one
//! call of rustc, against the kmr-core that they are linked with (about 0.2 s a file). They compare
//! only key phrases and places:
//!
//! * A line that ends with `//~ one | two` has exactly one error, whose text (message, labels,
//!   notes) contains both phrases. `//~ one || two` is for a line with two errors.
//! * There are no other errors: a mistake must not cause a second message somewhere else.
//!
//! `KMR_UI_SHOW=1 cargo test -p kmr-core --test ui -- --nocapture` prints the compiler's whole
//! output.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a test outside of `#[test]` functions")]

mod harness;

use self::harness::{Extern, builds_of, cases, compile, problem};

/// The kmr-core that this test is linked with: the last one that was built before it, with any
/// features.
fn libraries() -> [Extern; 1] {
    [("kmr_core", builds_of("kmr_core").remove(0))]
}

#[test]
fn invalid_strategies_are_rejected_at_the_stage_with_a_clear_message() {
    let (cases, libraries) = (cases("fail"), libraries());
    assert!(cases.len() > 20, "only {} cases were found", cases.len());
    let failed: Vec<String> = cases.iter().filter_map(|case| problem(case, &libraries)).collect();
    assert!(failed.is_empty(), "{} of {} cases failed\n\n{}", failed.len(), cases.len(), failed.join("\n\n"));
}

#[test]
fn strategies_need_nothing_in_scope() {
    for case in cases("pass") {
        let errors = compile(&case, &libraries());
        let texts: Vec<&str> = errors.iter().map(|error| error.rendered.as_str()).collect();
        assert!(errors.is_empty(), "{}\n{}", case.display(), texts.join("\n"));
    }
}
