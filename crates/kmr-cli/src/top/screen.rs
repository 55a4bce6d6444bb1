//! The terminal: its own screen while `top` runs, and what it was before in every end.

use std::io::{Stdout, stdout};
use std::panic;
use std::sync::Once;

use anyhow::Context;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};

/// A terminal with a screen of its own. Dropping it restores the terminal, and so does a panic.
pub(super) struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    /// # Errors
    /// There is no terminal that can be controlled.
    pub(super) fn open() -> anyhow::Result<Self> {
        restore_before_panics();
        let opened = open();
        if opened.is_err() {
            restore();
        }
        opened.map(Self).context("the terminal cannot be controlled; use --once")
    }

    pub(super) fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> anyhow::Result<()> {
        self.0.draw(render).map(drop).context("the terminal cannot be written to")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn open() -> std::io::Result<Terminal<CrosstermBackend<Stdout>>> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, Hide)?;
    Terminal::new(CrosstermBackend::new(stdout()))
}

/// A terminal that is closed has nothing to restore.
fn restore() {
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
}

/// The message of a panic would vanish with the screen.
fn restore_before_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            restore();
            report(panic);
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    #[ignore = "needs a terminal: the test below runs it in one"]
    fn panic_with_a_screen() {
        let mut screen = Screen::open().unwrap();
        screen.draw(|_| {}).unwrap();
        panic!("on purpose");
    }

    #[test]
    fn a_panic_restores_the_terminal_before_its_message() {
        let tests = std::env::current_exe().unwrap();
        let name = "top::screen::tests::panic_with_a_screen";
        let command = format!("'{}' --ignored --exact --nocapture {name}; stty -a", tests.display());
        let output = Command::new("script").args(["-qec", &command, "/dev/null"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part:?} in {text:?}"));
        assert!(
            at("\u{1b}[?1049h") < at("\u{1b}[?1049l") && at("\u{1b}[?1049l") < at("on purpose"),
            "{text:?}"
        );
        assert!(text.contains(" icanon") && text.contains(" echo "), "raw mode has ended: {text:?}");
    }
}
