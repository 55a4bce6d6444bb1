//! The graph of tasks: each step, and the fill of the channel before it.

use ratatui::text::{Line, Span};

use super::palette::Palette;
use crate::top::format::{bar, count, percent};
use crate::top::status::{Stage, Status};

/// Columns of a channel's bar.
const BAR: usize = 5;

/// A part of the graph that stays on one line.
struct Part {
    spans: Vec<Span<'static>>,
}

impl Part {
    fn step(name: &str, detail: &str) -> Self {
        let mut spans = vec![Span::styled(name.to_owned(), Palette::sums())];
        if !detail.is_empty() {
            spans.push(Span::raw(format!(" {detail}")));
        }
        Self { spans }
    }

    fn channel(percent: u64, palette: Palette) -> Self {
        let arrow = |text: &'static str| Span::styled(text, Palette::faint());
        let fill = Span::styled(bar(percent, BAR), palette.meter(percent));
        Self { spans: vec![arrow(" ─["), fill, Span::raw(format!("{percent:>3}%")), arrow("]→ ")] }
    }

    fn arrow() -> Self {
        Self { spans: vec![Span::styled(" ─→ ", Palette::faint())] }
    }

    fn width(&self) -> usize {
        self.spans.iter().map(Span::width).sum()
    }
}

/// The graph as lines of at most this width.
pub(super) fn lines(status: &Status, palette: Palette, width: usize) -> Vec<Line<'static>> {
    let memory = &status.memory;
    let mut parts = vec![
        Part::step("fetch", ""),
        Part::channel(percent(memory.unmapped_bytes, memory.budget_bytes), palette),
        Part::step("map", ""),
    ];
    let is_error = |stage: &&Stage| stage.name.as_str() == "reduce_err";
    for stage in status.stages.iter().filter(|stage| !is_error(stage)) {
        parts.extend([input(stage, palette), reduce(stage)]);
    }
    parts.extend([Part::arrow(), Part::step("commit", &count(status.totals.commits))]);
    let mut lines = wrapped(parts, width);
    if let Some(errors) = status.stages.iter().find(is_error) {
        let failed = Part::step("failed records", &count(status.totals.dead_letters));
        lines.extend(wrapped(vec![failed, input(errors, palette), reduce(errors)], width));
    }
    lines
}

fn input(stage: &Stage, palette: Palette) -> Part {
    Part::channel(percent(stage.waiting, stage.capacity), palette)
}

fn reduce(stage: &Stage) -> Part {
    Part::step(stage.name.as_str(), &format!("{}/{}", stage.deliveries, stage.max_deliveries))
}

/// Lines break before a channel, and the next line starts with it.
fn wrapped(parts: Vec<Part>, width: usize) -> Vec<Line<'static>> {
    let mut lines: Vec<Vec<Span<'static>>> = vec![Vec::new()];
    let mut used = 0;
    let mut parts = parts.into_iter().peekable();
    while let Some(part) = parts.next() {
        // A channel and the step after it belong together.
        let is_channel = part.spans.len() == 4;
        let needed = part.width() + if is_channel { parts.peek().map_or(0, Part::width) } else { 0 };
        if used > 0 && used + needed > width && (is_channel || used + part.width() > width) {
            lines.push(Vec::new());
            used = 0;
        }
        used += part.width();
        if let Some(line) = lines.last_mut() {
            line.extend(part.spans);
        }
    }
    lines.into_iter().map(Line::from).collect()
}
