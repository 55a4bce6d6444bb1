//! Writes lines for the person who runs the tests, despite the test runner's output capture.

use std::io::Write;

/// Writes a line to standard error, also from a test that passes. libtest captures only the print
/// macros.
#[doc(hidden)]
pub fn write_line(prefix: &str, line: impl std::fmt::Display) {
    // One write call keeps lines of parallel tests apart. A closed standard error is no failure.
    let _ = std::io::stderr().write_all(format!("[{prefix}] {line}\n").as_bytes());
}

pub(crate) fn log_line(line: impl std::fmt::Display) {
    write_line("kmr-testkit", line);
}
