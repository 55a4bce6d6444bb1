//! Everything that this program prints: results on standard output, everything else on standard error.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program prints; it does so here"
)]

/// A result: tables and what other programs read.
pub(crate) fn result(text: &str) {
    println!("{text}");
}

/// A note to whoever watches.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}
