//! Names and texts in SQL: quoting, and reading what the server quoted.

use serde::Deserialize;

/// A table's database and name, unquoted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct TableName {
    pub(crate) database: String,
    pub(crate) name: String,
}

/// A text, escaped for use between single quotes.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

/// A text as a SQL literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", escaped(text))
}

/// A name in backquotes, which ClickHouse reads back whatever characters it holds.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// The condition on `system.tables` that finds a table by its quoted name.
pub(crate) fn is_table(quoted_name: &str) -> String {
    match Words::new(quoted_name).name() {
        Some((database, Some(name))) => {
            format!("database = {} AND name = {}", literal(&database), literal(&name))
        }
        Some((name, None)) => format!("database = currentDatabase() AND name = {}", literal(&name)),
        None => format!("database = currentDatabase() AND name = {}", literal(quoted_name)),
    }
}

/// The words of a statement.
pub(crate) struct Words<'s>(&'s str);

impl<'s> Words<'s> {
    pub(crate) fn new(statement: &'s str) -> Self {
        Self(statement)
    }

    /// The text after what was read.
    pub(crate) fn rest(&self) -> &'s str {
        self.0
    }

    /// A name of one or two parts, each with or without backquotes.
    pub(crate) fn name(&mut self) -> Option<(String, Option<String>)> {
        self.0 = self.0.trim_start();
        let first = self.part()?;
        let second = self.0.strip_prefix('.').map(|rest| {
            self.0 = rest;
            self.part()
        });
        Some((first, second.flatten()))
    }

    fn part(&mut self) -> Option<String> {
        let Some(quoted) = self.0.strip_prefix('`') else {
            let end = self.0.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.0.len());
            let (part, rest) = self.0.split_at(end);
            self.0 = rest;
            return (!part.is_empty()).then(|| part.to_owned());
        };
        let mut part = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => part.push(characters.next()?.1),
                '`' => {
                    self.0 = &quoted[at + 1..];
                    return Some(part);
                }
                other => part.push(other),
            }
        }
        None
    }
}

impl<'s> Iterator for Words<'s> {
    type Item = &'s str;

    fn next(&mut self) -> Option<&'s str> {
        let rest = self.0.trim_start();
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_whatever_is_in_them() {
        assert_eq!(quoted(r"a`b\c"), r"`a\`b\\c`");
    }

    #[test]
    fn tables_are_found_by_their_quoted_names() {
        assert_eq!(is_table("`my db`.`t`"), "database = 'my db' AND name = 't'");
        assert_eq!(is_table("`it's`"), "database = currentDatabase() AND name = 'it\\'s'");
    }
}
