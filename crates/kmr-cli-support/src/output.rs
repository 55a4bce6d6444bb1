//! All printing: results go to standard output, everything else to standard error.
//!
//! `println!` panics if its reader has ended, as in `kmr-demo create-table | head -1`.

use std::io::{ErrorKind, Write};

/// Prints a result: a table, or JSON for other programs. A reader that has ended misses nothing
/// that it wanted; the command continues and its exit code is that of its work.
pub fn result(text: &str) {
    if let Err(error) = writeln!(std::io::stdout(), "{text}")
        && error.kind() != ErrorKind::BrokenPipe
    {
        // Such as a full disk: a script must not take a part of the result for all of it.
        note(&format!("error: writing to standard output failed: {error}"));
        std::process::exit(1);
    }
}

/// Prints a note for the operator.
pub fn note(text: &str) {
    // There is no other place to report that standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}
