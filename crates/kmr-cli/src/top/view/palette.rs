//! The colours: few, of the terminal's own sixteen, and none with `NO_COLOR`.
//!
//! No colour carries a meaning alone: each state has a word, and the selection is reversed.

use ratatui::style::{Color, Modifier, Style};

use crate::top::state::Kind;

#[derive(Clone, Copy, Debug)]
pub(in crate::top) struct Palette {
    pub(in crate::top) is_coloured: bool,
}

impl Palette {
    /// Colours, unless the environment has a `NO_COLOR` that is not empty: <https://no-color.org>.
    pub(in crate::top) fn of_environment() -> Self {
        Self { is_coloured: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    fn coloured(self, color: Color) -> Style {
        if self.is_coloured { Style::new().fg(color) } else { Style::new() }
    }

    pub(super) fn kind(self, kind: Kind) -> Style {
        match kind {
            Kind::Calm => Style::new(),
            Kind::Good => self.coloured(Color::Green),
            Kind::Warn => self.coloured(Color::Yellow).add_modifier(Modifier::BOLD),
            Kind::Bad => self.coloured(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    pub(super) fn title(self) -> Style {
        self.coloured(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// A meter that is filled to so many percent.
    pub(super) fn meter(self, percent: u64) -> Style {
        self.kind(match percent {
            100.. => Kind::Bad,
            80.. => Kind::Warn,
            _ => Kind::Good,
        })
    }

    pub(super) fn heading() -> Style {
        Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
    }

    pub(super) fn sums() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn faint() -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(super) fn selected() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}
