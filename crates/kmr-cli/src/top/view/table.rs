//! A table that fits into an area: columns as wide as their texts, a page of rows, the selected one
//! reversed.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::palette::Palette;
use crate::terminal::{shortened, shortened_partition};

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    title: &'static str,
    is_right: bool,
    /// Most columns of the terminal. `None`: what the others leave.
    widest: Option<usize>,
    /// The column is left out of narrower tables.
    needs: u16,
    shorten: fn(&str, usize) -> String,
}

impl Column {
    pub(super) const fn text(title: &'static str, widest: usize) -> Self {
        Self { title, is_right: false, widest: Some(widest), needs: 0, shorten: shortened }
    }

    /// The column of a partition's name.
    pub(super) const fn partition(title: &'static str, widest: usize) -> Self {
        Self { shorten: shortened_partition, ..Self::text(title, widest) }
    }

    pub(super) const fn number(title: &'static str, widest: usize) -> Self {
        Self { title, is_right: true, widest: Some(widest), needs: 0, shorten: shortened }
    }

    /// The column that has the rest of the width.
    pub(super) const fn rest(title: &'static str) -> Self {
        Self { title, is_right: false, widest: None, needs: 0, shorten: shortened }
    }

    /// Leaves the column out of tables that are narrower.
    pub(super) const fn from(self, needs: u16) -> Self {
        Self { needs, ..self }
    }
}

/// A cell: its text and its style.
pub(super) type Cell = (String, Style);

/// A cell without a style.
pub(super) fn plain(text: impl Into<String>) -> Cell {
    (text.into(), Style::new())
}

/// The rows of a table.
pub(super) struct Rows {
    /// The last cell of a row that has fewer cells than columns spans all columns that are left.
    pub(super) rows: Vec<Vec<Cell>>,
    /// The row that is shown reversed, and whose page is shown.
    pub(super) selected: Option<usize>,
    /// A row of sums after the page.
    pub(super) sums: Option<Vec<Cell>>,
}

/// Draws the rows of the page that has the selected one.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, columns: &[Column], all: &Rows) {
    let Rows { rows, selected, sums } = all;
    let others = 1 + usize::from(sums.is_some());
    let room = usize::from(area.height).saturating_sub(others).max(1);
    let first = selected.map_or(0, |selected| selected / room * room).min(rows.len());
    let page = &rows[first..(first + room).min(rows.len())];
    let shown: Vec<usize> =
        (0..columns.len()).filter(|column| columns[*column].needs <= area.width).collect();
    let rows_and_sums: Vec<_> = page.iter().chain(sums).collect();
    let widths = widths(columns, &shown, &rows_and_sums, usize::from(area.width));
    let titles: Vec<Cell> = columns.iter().map(|column| plain(column.title)).collect();
    let mut lines = vec![line(columns, &shown, &widths, &titles).style(Palette::heading())];
    for (at, row) in page.iter().enumerate() {
        let line = line(columns, &shown, &widths, row);
        lines.push(if *selected == Some(first + at) { line.style(Palette::selected()) } else { line });
    }
    if let Some(sums) = sums {
        lines.push(line(columns, &shown, &widths, sums).style(Palette::sums()));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// The width of each column that is shown. The last one may have less than it needs.
fn widths(columns: &[Column], shown: &[usize], rows: &[&Vec<Cell>], all: usize) -> Vec<usize> {
    let needed = |column: usize| {
        let spans_others = |row: &&&Vec<Cell>| row.len() < columns.len() && column + 1 >= row.len();
        let cells = rows.iter().filter(|row| !spans_others(row));
        let cells = cells.filter_map(|row| row.get(column)).map(|(text, _)| text.as_str());
        let widest = columns[column].widest.unwrap_or(0);
        let texts = cells.chain([columns[column].title]).map(console::measure_text_width);
        texts.max().unwrap_or(0).min(widest)
    };
    let mut widths: Vec<usize> = shown.iter().map(|column| needed(*column)).collect();
    let gaps = shown.len().saturating_sub(1);
    let left = all.saturating_sub(widths.iter().sum::<usize>() + gaps);
    if let Some(rest) = shown.iter().position(|column| columns[*column].widest.is_none()) {
        widths[rest] = left;
    }
    widths
}

fn line(columns: &[Column], shown: &[usize], widths: &[usize], row: &[Cell]) -> Line<'static> {
    let mut spans = Vec::new();
    for (at, (column, width)) in shown.iter().zip(widths).enumerate() {
        let spans_others = row.len() < columns.len() && column + 1 >= row.len();
        let Some((text, style)) = row.get(if spans_others { row.len() - 1 } else { *column }) else { break };
        let width = match spans_others {
            true => widths[at..].iter().sum::<usize>() + widths.len() - at - 1,
            false => *width,
        };
        let shorten = if spans_others { shortened } else { columns[*column].shorten };
        let text = if width == 0 { String::new() } else { shorten(text, width) };
        let padding = " ".repeat(width.saturating_sub(console::measure_text_width(&text)));
        let is_right = columns[*column].is_right && !spans_others;
        let text = if is_right { padding + &text } else { text + &padding };
        if at > 0 {
            spans.push(Span::raw(" "));
        }
        spans.push(Span::styled(text, *style));
        if spans_others {
            break;
        }
    }
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::text("Name", 6),
        Column::number("Lag", 5),
        Column::text("Far", 9).from(30),
        Column::rest("Text"),
    ];

    fn texts(all: usize, rows: &[Vec<Cell>]) -> Vec<String> {
        let shown: Vec<usize> = (0..4).filter(|column| usize::from(COLUMNS[*column].needs) <= all).collect();
        let widths = widths(&COLUMNS, &shown, &rows.iter().collect::<Vec<_>>(), all);
        rows.iter().map(|row| line(&COLUMNS, &shown, &widths, row).to_string()).collect()
    }

    #[test]
    fn columns_fit_their_texts_and_the_last_one_has_the_rest() {
        let rows = [
            ["a-long-name", "1", "far", "a text that is too long"].map(plain).to_vec(),
            ["b", "12", "f", "t"].map(plain).to_vec(),
        ];
        assert_eq!(texts(20, &rows), ["a-lon…   1 a text t…", "b       12 t        "]);
        assert_eq!(texts(30, &rows), ["a-lon…   1 far a text that is…", "b       12 f   t              "]);
        assert_eq!(texts(4, &rows)[1], "b       12 ", "too narrow, and no panic");
    }

    #[test]
    fn the_last_cell_of_a_short_row_spans_the_other_columns() {
        let rows = [["b", "1", "f", "t"].map(plain).to_vec(), ["a", "why it has none"].map(plain).to_vec()];
        assert_eq!(texts(20, &rows), ["b      1 t          ", "a    why it has none"]);
    }
}
