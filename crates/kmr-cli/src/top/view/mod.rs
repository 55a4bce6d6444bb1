//! The screen. It is a function of the state of [`App`] and of the size.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Wrap};

mod detail;
mod graph;
mod list;
mod overlay;
mod palette;
mod panes;
mod table;

pub(super) use palette::Palette;
pub(super) use panes::place;

use super::app::App;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App, palette: Palette) {
    let (title, rest) = below(frame.area(), 1);
    let (body, footer) = below(rest, rest.height.saturating_sub(1));
    if app.is_detail {
        draw_line(frame, title, detail::title(app, palette));
        detail::draw(frame, body, app, palette);
    } else {
        draw_line(frame, title, list::title(app).style(palette.title()));
        list::draw(frame, body, app, palette);
    }
    draw_line(frame, footer, last_line(app, palette, usize::from(footer.width)));
    overlay::draw(frame, app, palette);
}

/// The result of the last action, or the keys.
fn last_line(app: &App, palette: Palette, width: usize) -> Line<'static> {
    if let Some((text, kind)) = &app.message {
        return Line::styled(text.clone(), palette.kind(*kind));
    }
    let rows = "j/k select";
    let all: &[&str] = match app.is_detail {
        false => &["q quit", "? help", rows, "Enter open", "s order", "p pause", "r resume", "d drain"],
        true if app.consumers.len() > 1 => {
            &["q quit", "? help", "Esc list", "Tab pane", rows, "s order", "h/l consumer"]
        }
        true => &["q quit", "? help", "Tab pane", rows, "s order", "p pause", "r resume", "d drain"],
    };
    let mut text = String::new();
    for key in all {
        if text.len() + 2 + key.len() > width {
            break;
        }
        text += if text.is_empty() { "" } else { "  " };
        text += key;
    }
    Line::styled(text, Palette::faint())
}

/// The first lines of an area, and the rest.
fn below(area: Rect, height: u16) -> (Rect, Rect) {
    let height = height.min(area.height);
    let first = Rect { height, ..area };
    (first, Rect { y: area.y + height, height: area.height - height, ..area })
}

/// Draws on the first line of an area.
fn draw_line(frame: &mut Frame<'_>, area: Rect, line: Line<'static>) {
    frame.render_widget(line, below(area, 1).0);
}

/// Draws a text on as many lines as the area has.
fn wrapped_text(frame: &mut Frame<'_>, area: Rect, text: &str) {
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
}

#[cfg(test)]
mod tests;
