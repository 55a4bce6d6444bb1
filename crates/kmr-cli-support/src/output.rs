//! All printing: results go to standard output, everything else to standard error.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program prints; it does so here"
)]

/// Prints a result: a table, or JSON for other programs.
pub fn result(text: &str) {
    println!("{text}");
}

/// Prints a note for the operator.
pub fn note(text: &str) {
    eprintln!("{text}");
}
