//! Text for a terminal: its size, and texts of others without control characters.

use console::Term;

/// Columns of the terminal on standard output. `None`: it is none.
pub(crate) fn width() -> Option<u16> {
    let terminal = Term::stdout();
    terminal.features().is_attended().then(|| terminal.size().1)
}

/// Rows of the terminal on standard output. `None`: it is none.
pub(crate) fn height() -> Option<u16> {
    let terminal = Term::stdout();
    terminal.features().is_attended().then(|| terminal.size().0)
}

/// The bytes as text that no terminal obeys: control characters, invisible ones and bytes that are
/// no UTF-8 are escaped.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\'' => text.push(character),
                character => text.extend(character.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            text += &format!("\\x{byte:02x}");
        }
    }
    text
}

/// JSON that no terminal obeys: what `escaped` escapes in texts is written as `\u`.
pub(crate) fn json(value: &serde_json::Value) -> String {
    let mut text = String::new();
    for character in value.to_string().chars() {
        let is_plain = character.is_ascii() || character.escape_debug().count() == 1;
        if is_plain && !character.is_control() {
            text.push(character);
        } else {
            // Control characters occur in strings only.
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                text += &format!("\\u{unit:04x}");
            }
        }
    }
    text
}

/// A text of at most this many columns, with `…` in place of the rest.
pub(crate) fn shortened(text: &str, columns: usize) -> String {
    console::truncate_str(text, columns, "…").into_owned()
}

/// The name of a partition, `topic/3`, of at most this many columns. Only the topic is shortened.
pub(crate) fn shortened_partition(name: &str, columns: usize) -> String {
    let (topic, number) = name.split_at(name.rfind('/').unwrap_or(name.len()));
    match columns.checked_sub(console::measure_text_width(number)) {
        Some(room) if room > 1 => shortened(topic, room) + number,
        _ => shortened(name, columns),
    }
}

/// Rows of texts as lines with aligned columns, two spaces between them. The last column is not
/// padded. Columns whose title starts with `>` are right-aligned.
pub(crate) fn aligned(titles: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let is_right: Vec<bool> = titles.iter().map(|title| title.starts_with('>')).collect();
    let header = titles.iter().map(|title| title.trim_start_matches('>').to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&header).chain(rows).collect();
    let width = |column: usize| {
        let cells = all.iter().filter_map(|row| row.get(column));
        cells.map(|cell| console::measure_text_width(cell)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let line = |row: &&Vec<String>| {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column].saturating_sub(console::measure_text_width(cell)));
            line += if column == 0 { "" } else { "  " };
            line += &if is_right[column] { format!("{padding}{cell}") } else { format!("{cell}{padding}") };
        }
        line.trim_end().to_owned()
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_controls_the_terminal() {
        assert_eq!(escaped(b"{\"a\": 'b'} \\"), "{\"a\": 'b'} \\\\");
        let text = escaped("red \u{1b}[31m, \r\n\t\0 \u{202e}back \u{9b}1m ü".as_bytes());
        assert_eq!(text, "red \\u{1b}[31m, \\r\\n\\t\\0 \\u{202e}back \\u{9b}1m ü");
        assert_eq!(escaped(&[b'a', 0xff, 0xc3, b'b']), "a\\xff\\xc3b");
        assert!(!text.chars().any(char::is_control));
        let value = serde_json::json!({ "a": "\u{9b}1m \u{202e}\u{e0001} ü\n" });
        let text = json(&value);
        assert_eq!(text, "{\"a\":\"\\u009b1m \\u202e\\udb40\\udc01 ü\\n\"}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn a_shortened_partition_keeps_its_number() {
        assert_eq!(shortened_partition("orders/12", 9), "orders/12");
        assert_eq!(shortened_partition("orders/12", 8), "orde…/12");
        assert_eq!(shortened_partition("orders/12", 5), "o…/12");
        assert_eq!(shortened_partition("orders/12", 4), "ord…");
        assert_eq!(shortened_partition("orders", 4), "ord…");
    }

    #[test]
    fn columns_are_aligned_by_what_a_terminal_shows() {
        let row = |a: &str, b: &str, c: &str| vec![a.to_owned(), b.to_owned(), c.to_owned()];
        let lines = aligned(&[">n", "name", "text"], &[row("1", "über", "x "), row("100", "a", "y")]);
        assert_eq!(lines, ["  n  name  text", "  1  über  x", "100  a     y"]);
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("abcd", 4), "abcd");
    }
}
