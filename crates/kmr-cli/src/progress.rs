//! The progress of long work on standard error: a bar in a terminal, and elsewhere a line now and
//! then.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kmr_cli_support::numbers::grouped;
use kmr_cli_support::output;

/// Work of a moment shows none.
const QUIET: Duration = Duration::from_secs(1);
/// Interval of the lines where there is no terminal.
const LINES: Duration = Duration::from_secs(30);
const TEMPLATE: &str = "{msg}  {bar:24.cyan} {percent:>3} %  {human_pos} of {human_len} offsets, {eta} left";

/// Work whose parts can be counted.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Such as `reading "orders"`.
    what: String,
    total: u64,
    done: AtomicU64,
    started: Instant,
    bar: OnceLock<ProgressBar>,
    last_line: Mutex<Instant>,
}

impl Progress {
    pub(crate) fn new(what: impl Into<String>, total: u64) -> Self {
        let now = Instant::now();
        let (done, bar) = (AtomicU64::new(0), OnceLock::new());
        Self { what: what.into(), total, done, started: now, bar, last_line: Mutex::new(now) }
    }

    /// Counts more parts as done.
    pub(crate) fn advance(&self, parts: u64) {
        let done = self.done.fetch_add(parts, Ordering::Relaxed) + parts;
        let elapsed = self.started.elapsed();
        if elapsed < QUIET {
            return;
        }
        if std::io::stderr().is_terminal() {
            self.bar.get_or_init(|| self.bar()).set_position(done);
            return;
        }
        let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= LINES {
            *last = Instant::now();
            output::note(&line(&self.what, done, self.total, elapsed));
        }
    }

    fn bar(&self) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(self.total), ProgressDrawTarget::stderr_with_hz(5));
        // The test below checks the template; the default style would be good enough.
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("━━╌"));
        }
        bar.with_message(self.what.clone()).with_elapsed(self.started.elapsed())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}

/// `reading "orders": 1,200,000 of 4,800,000 offsets (25 %), about 90 s left`
fn line(what: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let (done, total) = (done.min(total), total.max(1));
    let percent = u128::from(done) * 100 / u128::from(total);
    let left = elapsed.as_secs_f64() * (total - done) as f64 / done.max(1) as f64;
    format!("{what}: {} of {} offsets ({percent} %), about {left:.0} s left", grouped(done), grouped(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_share_and_time_left() {
        let text = line("reading \"t\"", 1_200_000, 4_800_000, Duration::from_secs(30));
        assert_eq!(text, "reading \"t\": 1,200,000 of 4,800,000 offsets (25 %), about 90 s left");
        let text = line("w", 7, 5, Duration::from_secs(1));
        assert_eq!(text, "w: 5 of 5 offsets (100 %), about 0 s left");
        assert!(line("w", 0, 0, Duration::ZERO).starts_with("w: 0 of 1 "));
    }

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
