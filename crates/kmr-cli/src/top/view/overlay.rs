//! What lies over the screen: the help, and the question before an action.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::palette::Palette;
use crate::top::app::App;
use crate::top::client::Action;
use crate::top::keys::{HELP, Screen};

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, palette: Palette) {
    match app.screen() {
        Screen::Help => help(frame, palette),
        Screen::Confirmation => confirmation(frame, app, palette),
        Screen::List | Screen::Detail => {}
    }
}

fn help(frame: &mut Frame<'_>, palette: Palette) {
    let lines: Vec<Line<'_>> =
        HELP.iter().map(|(keys, meaning)| Line::from(format!("{keys:<19} {meaning}"))).collect();
    boxed(frame, "Keys (any key closes this)", lines, palette);
}

fn confirmation(frame: &mut Frame<'_>, app: &App, palette: Palette) {
    let Some((place, action)) = app.pending else { return };
    let Some(consumer) = app.consumers.get(place) else { return };
    let question = match action {
        Action::Pause => "Pause all partitions of this consumer?",
        Action::Resume => "Resume all partitions of this consumer?",
        Action::Drain => "Drain this consumer and stop it? Only a new start undoes it.",
    };
    let name = consumer.name().unwrap_or_default();
    let lines = [question.to_owned(), name, consumer.address.text().to_owned(), "y: yes   n: no".to_owned()];
    boxed(frame, action.name(), lines.map(Line::from).to_vec(), palette);
}

/// A box in the middle of the screen.
fn boxed(frame: &mut Frame<'_>, title: &'static str, lines: Vec<Line<'_>>, palette: Palette) {
    let all = frame.area();
    let widest = lines.iter().map(Line::width).max().unwrap_or(0).max(title.len() + 2);
    let width = (widest as u16).saturating_add(4).min(all.width);
    let inner = usize::from(width.saturating_sub(2).max(1));
    let needed: usize = lines.iter().map(|line| line.width().div_ceil(inner).max(1)).sum();
    let height = (needed as u16).saturating_add(2).min(all.height);
    let area = Rect { x: (all.width - width) / 2, y: (all.height - height) / 2, width, height };
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(Line::styled(format!(" {title} "), palette.title()));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}
