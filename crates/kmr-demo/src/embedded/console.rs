//! The demo's standard error: a progress bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kmr_cli_support::output;

/// Where progress and dead letters are shown.
#[derive(Debug)]
pub(crate) enum Console {
    Bar(ProgressBar),
    Lines,
}

impl Console {
    /// The console that suits standard error, for `messages` messages.
    pub(crate) fn for_stderr(messages: u64) -> Arc<Self> {
        if !std::io::stderr().is_terminal() {
            return Arc::new(Console::Lines);
        }
        let bar = ProgressBar::with_draw_target(Some(messages), ProgressDrawTarget::stderr_with_hz(15));
        // The test below checks the template; the default style would be good enough.
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("━━╌"));
        }
        Arc::new(Console::Bar(bar))
    }

    /// Prints a line above the bar.
    pub(crate) fn line(&self, text: &str) {
        match self {
            Console::Bar(bar) => bar.suspend(|| output::note(text)),
            Console::Lines => output::note(text),
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Console::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

const TEMPLATE: &str = "{bar:24.cyan} {percent:>3} %  {elapsed_precise}  {msg}";

#[cfg(test)]
mod tests {
    #[test]
    fn the_template_is_valid() {
        assert!(super::ProgressStyle::with_template(super::TEMPLATE).is_ok());
    }
}
