//! One consumer: header, throughput, graph, and a pane.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::palette::Palette;
use super::{below, graph, panes, wrapped_text};
use crate::top::app::App;
use crate::top::consumer::Consumer;
use crate::top::format::{bar, brief, bytes, lag, percent, rate, seconds};
use crate::top::status::Status;

/// Lines of the graph at most.
const GRAPH: u16 = 6;
/// From so many lines on, the throughput of the last minutes is drawn.
const TALL: u16 = 20;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, palette: Palette) {
    let Some(consumer) = app.current() else { return };
    let text = consumer.reason();
    // A problem without values has all of the room.
    let Some(status) = consumer.status() else { return wrapped_text(frame, area, &text) };
    let is_long = text.chars().count() > usize::from(area.width);
    let (reason, area) = below(area, if is_long { 2 } else { 1 });
    wrapped_text(frame, reason, &text);
    let width = usize::from(area.width);
    let mut lines = numbers(status, consumer, palette, width);
    if area.height >= TALL {
        lines.push(throughput(consumer, palette, width));
    }
    if area.height >= 10 {
        let graph = graph::lines(status, palette, width);
        let room = usize::from(GRAPH.min(area.height.saturating_sub(10)));
        lines.extend(graph.into_iter().take(room));
    }
    lines.push(panes::tabs(app, consumer, palette, width));
    let style = if consumer.problem.is_some() { Palette::faint() } else { Style::new() };
    let (head, pane) = below(area, lines.len() as u16);
    frame.render_widget(Paragraph::new(lines).style(style), head);
    panes::draw(frame, pane, app, consumer, palette);
}

/// The first line of the screen.
pub(super) fn title(app: &App, palette: Palette) -> Line<'static> {
    let Some(consumer) = app.current() else { return Line::default() };
    let state = Span::styled(consumer.word().to_owned(), palette.kind(consumer.kind()));
    let name = consumer.name().unwrap_or_default();
    let uptime = consumer.current().and_then(|status| status.uptime_seconds);
    let up = uptime.map_or_else(String::new, |uptime| format!("  up {}", seconds(Some(uptime))));
    let others = match app.consumers.len() {
        1 => String::new(),
        all => format!("  {} of {all}", app.selected + 1),
    };
    let address = consumer.address.text();
    Line::from(vec![
        state,
        Span::styled(format!(" {name}"), palette.title()),
        format!("  {address}{up}{others}").into(),
    ])
}

/// Rates, lag and memory, on as many lines as they need.
fn numbers(status: &Status, consumer: &Consumer, palette: Palette, width: usize) -> Vec<Line<'static>> {
    let history = &consumer.history;
    let oldest = match status.lag_seconds {
        Some(oldest) if oldest >= 1.0 => format!(", oldest {}", seconds(Some(oldest))),
        _ => String::new(),
    };
    let memory = &status.memory;
    let fill = percent(memory.used_bytes, memory.budget_bytes);
    let parts = vec![
        vec![Span::raw(format!("{} records/s", rate(history.records_per_second())))],
        vec![Span::raw(format!("{} rows/s", rate(history.rows_per_second())))],
        vec![Span::raw(format!("lag {}{oldest}", lag(status.lag_records)))],
        vec![
            Span::raw("memory ["),
            Span::styled(bar(fill, 10), palette.meter(fill)),
            Span::raw(format!("{fill:>3}%] {} of {}", bytes(memory.used_bytes), bytes(memory.budget_bytes))),
        ],
    ];
    let mut lines = vec![Line::default()];
    for part in parts {
        let needed: usize = part.iter().map(Span::width).sum();
        let line = lines.last().map_or(0, Line::width);
        if line > 0 && line + 2 + needed > width {
            lines.push(Line::default());
        } else if let Some(line) = lines.last_mut().filter(|_| line > 0) {
            line.push_span("  ");
        }
        lines.last_mut().into_iter().for_each(|line| line.spans.extend(part.iter().cloned()));
    }
    lines
}

/// Records per second of the last statuses, the newest at the right.
fn throughput(consumer: &Consumer, palette: Palette, width: usize) -> Line<'static> {
    let steps = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let newest = || consumer.history.throughput().rev().take(width.saturating_sub(24));
    let top = newest().fold(0.0_f64, f64::max);
    let step = |rate: f64| steps[((rate / top.max(1.0) * 7.0).round() as usize).min(7)];
    let mut line: Vec<char> = newest().map(step).collect();
    line.reverse();
    let line = Span::styled(line.into_iter().collect::<String>(), palette.title());
    Line::from(vec![line, Span::raw(format!(" highest {}/s", brief(top)))])
}
