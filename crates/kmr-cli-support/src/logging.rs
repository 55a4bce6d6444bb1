//! Log lines on standard error, filtered by `RUST_LOG`; warnings and errors by default.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging for the process.
pub fn start() {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // It would report a closed standard error with `eprintln!`, which panics then.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    // Fails only if the process has a subscriber already.
    let _ = tracing_subscriber::registry().with(lines).with(filter()).try_init();
}

/// `RUST_LOG`: a level, or a list of `target=level`. librdkafka's own lines repeat kmr's reports.
fn filter() -> Targets {
    let set = std::env::var("RUST_LOG").ok().and_then(|text| text.parse().ok());
    set.unwrap_or_else(|| {
        Targets::new().with_default(LevelFilter::WARN).with_target("librdkafka", LevelFilter::OFF)
    })
}
