//! The figures that integration tests report, as one table.
//!
//! A test adds a line of `name=value` pairs with tabs between to the file that [`VARIABLE`] names;
//! the names of the first line head the table.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::process::state_directory;

/// What tests look at for the file.
pub(crate) const VARIABLE: &str = "KMR_FIGURES";

/// The file of the latest run.
pub(crate) fn file() -> PathBuf {
    state_directory().join("figures.txt")
}

/// Removes the figures of an earlier run.
///
/// # Errors
///
/// When the file is there and cannot be removed: its lines would pass for new ones.
pub(crate) fn clear() -> Result<()> {
    match std::fs::remove_file(file()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", file().display()))
        }
        _ => Ok(()),
    }
}

/// Prints what was reported; nothing where nothing was.
pub(crate) fn print() {
    let Ok(lines) = std::fs::read_to_string(file()) else { return };
    println!("\n{}\nfrom {}", table(&lines), file().display());
}

/// Columns under their names, rows in order.
fn table(lines: &str) -> String {
    let mut rows: Vec<&str> = lines.lines().collect();
    rows.sort_unstable();
    let cells = |line: &str, pick: fn((&str, &str)) -> String| -> Vec<String> {
        line.split('\t').filter_map(|pair| pair.split_once('=').map(pick)).collect()
    };
    let mut table: Vec<Vec<String>> = Vec::new();
    table.extend(rows.first().map(|line| cells(line, |(name, _)| name.to_owned())));
    table.extend(rows.iter().map(|line| cells(line, |(_, value)| value.to_owned())));
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| table.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    table.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn values_stand_under_their_names() {
        let text = table("row=b\trecords=10\tnotes=\nrow=a, long\trecords=2000\tnotes=seed=7\n");
        assert_eq!(text, "row      records  notes\na, long  2000     seed=7\nb        10");
    }
}
