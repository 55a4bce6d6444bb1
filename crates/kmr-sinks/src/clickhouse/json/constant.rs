//! Whether a DEFAULT is a constant: then the server is asked for it once, at the start.

/// Functions whose result depends on their arguments alone.
const PURE: &[&str] =
    &["cast", "_cast", "array", "map", "tuple", "concat", "defaultvalueoftypename", "negate"];
/// Words that are no columns.
const WORDS: &[&str] = &["null", "true", "false", "as", "inf", "nan"];

/// Whether the expression is made of literals, conversions and the functions in [`PURE`]. All
/// others count as computed: `now()`, columns, dictionaries.
pub(super) fn is_constant(expression: &str) -> bool {
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        match first {
            '\'' => match after_text(rest) {
                Some(after) => rest = after,
                None => return false,
            },
            '`' | '"' => return false,
            first if first.is_alphabetic() || first == '_' => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                if !is_allowed(word, after.trim_start().starts_with('(')) {
                    return false;
                }
                rest = after;
            }
            // A number such as 1e5 or 0x1F is one word.
            first if first.is_ascii_digit() => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '.')).unwrap_or(rest.len());
                rest = &rest[end..];
            }
            first => rest = &rest[first.len_utf8()..],
        }
    }
    true
}

fn is_allowed(word: &str, is_call: bool) -> bool {
    let lower = word.to_ascii_lowercase();
    let is_conversion = word.starts_with("to") && word[2..].starts_with(char::is_uppercase);
    match is_call {
        true => PURE.contains(&lower.as_str()) || is_conversion || word.starts_with("emptyArray"),
        false => WORDS.contains(&lower.as_str()),
    }
}

/// The text after a literal in quotes.
fn after_text(text: &str) -> Option<&str> {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => drop(characters.next()?),
            '\'' => return Some(&text[at + 1..]),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_conversions_are_constants() {
        for text in [
            "1",
            "-1.5e3",
            "'now()'",
            r"'it\'s'",
            "CAST('a', 'UInt8')",
            "[]",
            "NULL",
            "toDate('2020-01-01')",
            "(1, 2)",
        ] {
            assert!(is_constant(text), "{text}");
        }
        for text in [
            "now()",
            "id",
            "toDate(now())",
            "toDate(at)",
            "generateUUIDv4()",
            "rand() % 2",
            "`a`",
            "today()",
            "'x",
        ] {
            assert!(!is_constant(text), "{text}");
        }
    }
}
