//! Lines for the person who runs the tests, past the output capture of the test runner.

use std::io::Write;

/// Writes a line to standard error, also from a test that passes: libtest captures what the print macros write.
pub fn say(line: impl std::fmt::Display) {
    // One write call, so that lines of parallel tests do not mix. A closed standard error is no reason to fail.
    let _ = std::io::stderr().write_all(format!("[it] {line}\n").as_bytes());
}
