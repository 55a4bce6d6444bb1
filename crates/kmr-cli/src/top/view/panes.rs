//! The panes of the detail view: partitions, stages, deliveries, and events of each kind.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::palette::Palette;
use super::table::{self, Cell, Column, Rows, plain};
use super::{below, wrapped_text};
use crate::top::app::{App, Pane};
use crate::top::consumer::Consumer;
use crate::top::format::{bytes, clock, count, lag, offset, percent, rate, seconds};
use crate::top::state::{Kind, partition_state};
use crate::top::status::{Delivery, Event, Partition, Stage, Status};

const PARTITIONS: [Column; 10] = [
    Column::text("State", 7),
    Column::partition("Partition", 40),
    Column::number("Lag", 9),
    Column::number("Lag time", 8).from(72),
    Column::number("Rec/s", 9).from(50),
    Column::number("Age", 7),
    Column::number("Oldest", 13).from(64),
    Column::number("Committed", 13).from(120),
    Column::number("Log end", 13).from(120),
    Column::rest("Waits for"),
];
const STAGES: [Column; 5] = [
    Column::text("Stage", 24),
    Column::number("Channel", 16),
    Column::number("Fill", 5),
    Column::number("Deliveries", 12),
    Column::number("Rows", 14),
];
const DELIVERIES: [Column; 4] = [
    Column::text("Stage", 24),
    Column::number("Attempt", 8),
    Column::number("Time", 7),
    Column::rest("Last error"),
];
const EVENTS: [Column; 4] = [
    Column::text("Time", 8),
    Column::number("Count", 9),
    Column::text("Place", 30).from(60),
    Column::rest("Event"),
];

/// The titles of the panes, or the selected one alone if they are too wide.
pub(super) fn tabs(app: &App, consumer: &Consumer, palette: Palette, width: usize) -> Line<'static> {
    let title = |pane: Pane| format!("{} {}", pane.title(), pane.rows(consumer));
    for gap in ["   ", "  ", " "] {
        let mut spans = Vec::new();
        for pane in Pane::ALL {
            let style = if pane == app.pane { Palette::selected() } else { palette.title() };
            spans.extend([Span::styled(title(pane), style), Span::raw(gap)]);
        }
        spans.pop();
        let line = Line::from(spans);
        if line.width() <= width {
            return line;
        }
    }
    let selected = Span::styled(title(app.pane), Palette::selected());
    Line::from(vec![Span::raw("‹ "), selected, Span::raw(" › Tab: other panes")])
}

/// Draws the pane, and the whole text of its selected row below.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, consumer: &Consumer, palette: Palette) {
    let Some(status) = consumer.status() else { return };
    let text_lines = if area.height >= 8 { 2 } else { 0 };
    let (area, text_area) = below(area, area.height - text_lines);
    let selected = app.selected_row();
    let (columns, rows, text): (&[Column], Vec<_>, String) = match app.pane {
        Pane::Partitions => {
            let all = app.partitions_in_order();
            let rows = all.iter().map(|one| partition(one, consumer, palette)).collect();
            (&PARTITIONS, rows, all.get(selected).map_or_else(String::new, |one| partition_text(one)))
        }
        Pane::Stages => {
            (&STAGES, status.stages.iter().map(|one| stage(one, palette)).collect(), totals(status))
        }
        Pane::Deliveries => {
            let text = status.deliveries.get(selected).and_then(|one| one.last_error.as_ref());
            let text = text.map_or_else(String::new, |text| text.as_str().to_owned());
            (&DELIVERIES, status.deliveries.iter().map(|one| delivery(one, palette)).collect(), text)
        }
        Pane::Errors => events(status, "error", selected),
        Pane::DeadLetters => events(status, "dead_letter", selected),
        Pane::Rebalances => events(status, "rebalance", selected),
    };
    if rows.is_empty() {
        return super::draw_line(frame, area, Line::styled(empty(app.pane), Palette::faint()));
    }
    let selected = (app.pane != Pane::Stages).then_some(selected);
    table::draw(frame, area, columns, &Rows { rows, selected, sums: None });
    wrapped_text(frame, text_area, &text);
}

fn empty(pane: Pane) -> &'static str {
    match pane {
        Pane::Partitions => "No partition is assigned to this consumer.",
        Pane::Stages => "The stages have not started.",
        Pane::Deliveries => "No delivery is in progress.",
        Pane::Errors | Pane::DeadLetters | Pane::Rebalances => "None.",
    }
}

fn partition(partition: &Partition, consumer: &Consumer, palette: Palette) -> Vec<Cell> {
    let (word, kind) = partition_state(partition);
    let is_waiting = partition.oldest_unfinished.is_some() || partition.late;
    vec![
        (word.to_owned(), palette.kind(kind)),
        plain(partition.name.text()),
        plain(lag(partition.lag_records)),
        plain(seconds(partition.lag_seconds)),
        plain(rate(consumer.history.partition_rate(&partition.name))),
        plain(seconds(partition.age_seconds.filter(|_| is_waiting))),
        plain(offset(partition.oldest_unfinished)),
        plain(offset(partition.committed)),
        plain(offset(partition.log_end)),
        plain(partition.waits_for.as_ref().map_or("–", |text| text.as_str())),
    ]
}

fn partition_text(partition: &Partition) -> String {
    let waits_for = partition
        .waits_for
        .as_ref()
        .map_or_else(String::new, |text| format!("; waits for {}", text.as_str()));
    format!(
        "{}: oldest unfinished {}, committed {}, position {}, log end {}{waits_for}",
        partition.name.text(),
        offset(partition.oldest_unfinished),
        offset(partition.committed),
        offset(partition.position),
        offset(partition.log_end),
    )
}

fn stage(stage: &Stage, palette: Palette) -> Vec<Cell> {
    let fill = percent(stage.waiting, stage.capacity);
    vec![
        plain(stage.name.as_str()),
        plain(format!("{} of {}", stage.waiting, stage.capacity)),
        (format!("{fill}%"), palette.meter(fill)),
        plain(format!("{} of {}", stage.deliveries, stage.max_deliveries)),
        plain(count(stage.rows)),
    ]
}

/// The counters since the start.
fn totals(status: &Status) -> String {
    let t = &status.totals;
    format!(
        "Since the start: {} records, {} rows, {} commits, {} dead letters, {} rebalances, {} clients replaced, \
         {} offset resets. {} wait for their mapper",
        count(t.records),
        count(t.rows),
        count(t.commits),
        count(t.dead_letters),
        count(t.rebalances),
        count(t.client_replacements),
        count(t.offset_resets),
        bytes(status.memory.unmapped_bytes),
    )
}

fn delivery(delivery: &Delivery, palette: Palette) -> Vec<Cell> {
    let kind = if delivery.attempt > 1 { Kind::Bad } else { Kind::Calm };
    vec![
        plain(delivery.stage.as_str()),
        (count(delivery.attempt), palette.kind(kind)),
        plain(seconds(delivery.seconds)),
        plain(delivery.last_error.as_ref().map_or("", |text| text.as_str())),
    ]
}

fn events(status: &Status, kind: &str, selected: usize) -> (&'static [Column], Vec<Vec<Cell>>, String) {
    let all: Vec<&Event> = status.events.iter().filter(|event| event.kind.as_str() == kind).collect();
    let text = all.get(selected).map_or_else(String::new, |event| event_text(event));
    (&EVENTS, all.iter().map(|event| self::event(event)).collect(), text)
}

fn event(event: &Event) -> Vec<Cell> {
    vec![plain(clock(event.time)), plain(count(event.count)), plain(place(event)), plain(event.text.as_str())]
}

/// Where it happened: partition, offset, stage.
pub(in crate::top) fn place(event: &Event) -> String {
    let partition = event.topic.as_ref().zip(event.partition);
    let parts = [
        partition.map(|(topic, partition)| format!("{}/{partition}", topic.as_str())),
        event.offset.map(|known| format!("offset {}", offset(Some(known)))),
        event.stage.as_ref().map(|stage| stage.as_str().to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn event_text(event: &Event) -> String {
    let since = match event.time.saturating_sub(event.first_time) >= 1_000 {
        true => format!(", since {}", clock(event.first_time)),
        false => String::new(),
    };
    let place = place(event);
    let place = if place.is_empty() { place } else { format!(" ({place})") };
    format!("{}{since}: {}{place}", clock(event.time), event.text.as_str())
}
