//! What a key means. It depends on what is on the screen, and on nothing else.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::client::Action;

/// What is on the screen, as far as keys depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    List,
    Detail,
    Help,
    /// An action waits for its confirmation.
    Confirmation,
}

/// What a key requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Quit,
    Move(Step),
    Open,
    Back,
    NextPane,
    PreviousPane,
    NextConsumer,
    PreviousConsumer,
    NextSort,
    PreviousSort,
    Request(Action),
    Confirm,
    Help,
}

/// How far the selection moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Up(usize),
    Down(usize),
    First,
    Last,
}

/// Rows of a page.
const PAGE: usize = 10;

/// The help, a line for each entry.
pub(super) const HELP: [(&str, &str); 12] = [
    ("q, Ctrl-C", "quit"),
    ("↑ ↓ or k j", "select a row"),
    ("PgUp PgDn Home End", "the same, further"),
    ("Enter, Esc", "open a consumer, back to the list"),
    ("← → or h l", "previous and next consumer"),
    ("Tab, Shift-Tab", "next and previous pane"),
    ("s, S", "next and previous order: worst, lag, age, rate, name"),
    ("p", "pause all partitions of the consumer"),
    ("r", "resume them"),
    ("d", "drain the consumer and stop it"),
    ("y, n", "confirm an action, or not"),
    ("?", "this help"),
];

/// The command of a key on a screen.
pub(super) fn command(key: &KeyEvent, screen: Screen) -> Option<Command> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Command::Quit);
    }
    match screen {
        Screen::Confirmation => match key.code {
            KeyCode::Char('y' | 'Y') => Some(Command::Confirm),
            KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => Some(Command::Back),
            _ => None,
        },
        Screen::Help => Some(Command::Back),
        Screen::List | Screen::Detail => on_rows(key.code, screen),
    }
}

fn on_rows(key: KeyCode, screen: Screen) -> Option<Command> {
    Some(match key {
        KeyCode::Char('q') => Command::Quit,
        KeyCode::Up | KeyCode::Char('k') => Command::Move(Step::Up(1)),
        KeyCode::Down | KeyCode::Char('j') => Command::Move(Step::Down(1)),
        KeyCode::PageUp => Command::Move(Step::Up(PAGE)),
        KeyCode::PageDown | KeyCode::Char(' ') => Command::Move(Step::Down(PAGE)),
        KeyCode::Home | KeyCode::Char('g') => Command::Move(Step::First),
        KeyCode::End | KeyCode::Char('G') => Command::Move(Step::Last),
        KeyCode::Char('s') => Command::NextSort,
        KeyCode::Char('S') => Command::PreviousSort,
        KeyCode::Char('p') => Command::Request(Action::Pause),
        KeyCode::Char('r') => Command::Request(Action::Resume),
        KeyCode::Char('d') => Command::Request(Action::Drain),
        KeyCode::Char('?') | KeyCode::F(1) => Command::Help,
        KeyCode::Enter if screen == Screen::List => Command::Open,
        KeyCode::Right | KeyCode::Char('l') if screen == Screen::List => Command::Open,
        KeyCode::Right | KeyCode::Char('l') => Command::NextConsumer,
        KeyCode::Left | KeyCode::Char('h') if screen == Screen::Detail => Command::PreviousConsumer,
        KeyCode::Tab if screen == Screen::Detail => Command::NextPane,
        KeyCode::BackTab if screen == Screen::Detail => Command::PreviousPane,
        KeyCode::Esc | KeyCode::Backspace if screen == Screen::Detail => Command::Back,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: KeyCode, screen: Screen) -> Option<Command> {
        command(&KeyEvent::new(key, KeyModifiers::NONE), screen)
    }

    #[test]
    fn keys_depend_on_the_screen() {
        for screen in [Screen::List, Screen::Detail, Screen::Help, Screen::Confirmation] {
            let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
            assert_eq!(command(&interrupt, screen), Some(Command::Quit), "{screen:?}");
        }
        assert_eq!(of(KeyCode::Enter, Screen::List), Some(Command::Open));
        assert_eq!(of(KeyCode::Enter, Screen::Detail), None);
        assert_eq!(of(KeyCode::Tab, Screen::Detail), Some(Command::NextPane));
        assert_eq!(of(KeyCode::Char('l'), Screen::Detail), Some(Command::NextConsumer));
        assert_eq!(of(KeyCode::Esc, Screen::Detail), Some(Command::Back));
        assert_eq!(of(KeyCode::Char('q'), Screen::List), Some(Command::Quit));
        assert_eq!(of(KeyCode::Char('x'), Screen::Help), Some(Command::Back));
        assert_eq!(of(KeyCode::Char('j'), Screen::List), Some(Command::Move(Step::Down(1))));
    }

    #[test]
    fn only_y_confirms_an_action() {
        for key in [KeyCode::Enter, KeyCode::Char(' '), KeyCode::Char('d'), KeyCode::Tab] {
            assert_eq!(of(key, Screen::Confirmation), None, "{key:?}");
        }
        assert_eq!(of(KeyCode::Char('y'), Screen::Confirmation), Some(Command::Confirm));
        for key in [KeyCode::Char('n'), KeyCode::Esc, KeyCode::Char('q')] {
            assert_eq!(of(key, Screen::Confirmation), Some(Command::Back), "{key:?}");
        }
    }

    #[test]
    fn a_released_key_means_nothing() {
        let key = KeyEvent::new_with_kind(KeyCode::Char('q'), KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(command(&key, Screen::List), None);
    }
}
