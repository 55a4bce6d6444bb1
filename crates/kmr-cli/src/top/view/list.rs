//! The list of consumers, with sums.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::palette::Palette;
use super::table::{self, Cell, Column, Rows, plain};
use super::{below, wrapped_text};
use crate::top::app::App;
use crate::top::consumer::Consumer;
use crate::top::format::{self, UNKNOWN};
use crate::top::sort;
use crate::top::status::Status;

/// Lines for the text of the selected consumer.
const REASON: u16 = 2;

const COLUMNS: [Column; 10] = [
    Column::text("State", 12),
    Column::rest("Consumer"),
    Column::text("Address", 30).from(100),
    Column::number("Records/s", 9),
    Column::number("Lag", 9),
    Column::number("Lag time", 8).from(90),
    Column::number("Age", 7),
    Column::number("Memory", 6).from(60),
    Column::number("Partitions", 10).from(100),
    Column::number("Dead", 8).from(70),
];

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, palette: Palette) {
    let order = sort::consumers(&app.consumers, app.sort);
    let has_addresses = area.width >= 100;
    let rows = order.iter().map(|place| row(&app.consumers[*place], has_addresses, palette)).collect();
    let selected = order.iter().position(|place| *place == app.selected);
    let (table, rest) = below(area, area.height.saturating_sub(REASON));
    let sums = Some(sums(&app.consumers));
    table::draw(frame, table, &COLUMNS, &Rows { rows, selected, sums });
    let text = app
        .current()
        .map_or_else(String::new, |consumer| format!("{}: {}", consumer.address.text(), consumer.reason()));
    wrapped_text(frame, rest, &text);
}

/// The first line of the screen.
pub(super) fn title(app: &App) -> Line<'static> {
    let all = app.consumers.len();
    let without = app.consumers.iter().filter(|consumer| consumer.problem.is_some()).count();
    let missing = if without > 0 { format!(", {without} without a status") } else { String::new() };
    Line::from(format!("kmr top: {all} consumers{missing}, {} first", app.sort.name()))
}

fn row(consumer: &Consumer, has_addresses: bool, palette: Palette) -> Vec<Cell> {
    let address = consumer.address.text();
    let name = match (consumer.name(), has_addresses) {
        (None, _) => address.to_owned(),
        (Some(name), true) => name,
        (Some(name), false) => format!("{name} {address}"),
    };
    let state = (consumer.word().to_owned(), palette.kind(consumer.kind()));
    if let Some(problem) = &consumer.problem {
        // Its values would be old.
        return vec![state, plain(name), plain(problem.cause())];
    }
    let mut row = vec![state, plain(name), plain(address)];
    row.extend(numbers(&[consumer]).into_iter().map(plain));
    row
}

fn sums(consumers: &[Consumer]) -> Vec<Cell> {
    let all: Vec<&Consumer> = consumers.iter().collect();
    let mut row = vec![plain("all"), plain(""), plain("")];
    row.extend(numbers(&all).into_iter().map(plain));
    row
}

/// Sums, and the highest times, of the consumers whose status is of now.
fn numbers(consumers: &[&Consumer]) -> Vec<String> {
    let known: Vec<(&Consumer, &Status)> =
        consumers.iter().filter_map(|consumer| Some((*consumer, consumer.current()?))).collect();
    if known.is_empty() {
        return vec![UNKNOWN.to_owned(); 7];
    }
    let statuses = || known.iter().map(|(_, status)| *status);
    let rates = known.iter().filter_map(|(consumer, _)| consumer.history.records_per_second());
    let rate = rates.reduce(|sum, rate| sum + rate);
    let lag = statuses().filter_map(|status| status.lag_records).reduce(i64::saturating_add);
    let highest = |value: fn(&Status) -> Option<f64>| statuses().filter_map(value).reduce(f64::max);
    let used = statuses().map(|status| status.memory.used_bytes).fold(0, u64::saturating_add);
    let budget = statuses().map(|status| status.memory.budget_bytes).fold(0, u64::saturating_add);
    let late: usize = statuses().map(Status::late).sum();
    let owned: usize = statuses().map(|status| status.partitions.len()).sum();
    let dead = statuses().map(|status| status.totals.dead_letters).fold(0, u64::saturating_add);
    vec![
        format::rate(rate),
        format::lag(lag),
        format::seconds(highest(|status| status.lag_seconds)),
        format::seconds(highest(Status::age_seconds)),
        format!("{}%", format::percent(used, budget)),
        if late > 0 { format!("{owned}, {late} late") } else { owned.to_string() },
        format::count(dead),
    ]
}
