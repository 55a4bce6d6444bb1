//! Tables of numbers: one row for each partition, a row of sums, all cells right-aligned.

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::numbers::grouped;

/// A table with borders and the given column titles, without rows.
pub fn with_header<'a>(titles: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(titles);
    table
}

/// A row of texts.
pub fn texts(cells: impl IntoIterator<Item = String>) -> Vec<Cell> {
    cells.into_iter().map(|text| Cell::new(text).set_alignment(CellAlignment::Right)).collect()
}

/// A row of a name and numbers, digits grouped.
pub fn numbers(name: String, numbers: impl IntoIterator<Item = u64>) -> Vec<Cell> {
    texts(std::iter::once(name).chain(numbers.into_iter().map(grouped)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_right_aligned() {
        let mut table = with_header(["partition", "records"]);
        table.add_row(numbers("0".to_owned(), [1_234]));
        let text = table.to_string();
        assert!(text.contains("│         0 ┆   1,234 │"), "{text}");
    }
}
