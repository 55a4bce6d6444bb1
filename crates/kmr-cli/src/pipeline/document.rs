//! The file as it is written: the line of each value, and the origin of its parts.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::position;
use super::value::Origin;

/// A file that was parsed.
pub(super) struct Document<'c> {
    content: &'c str,
    root: DeTable<'c>,
}

/// A value as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Its line, from 1.
    pub(super) line: usize,
    /// The origins of the texts in it.
    pub(super) origins: Vec<Origin>,
}

impl<'c> Document<'c> {
    /// Parses a file.
    ///
    /// # Errors
    /// It is no TOML.
    pub(super) fn parse(content: &'c str) -> Result<Self, toml::de::Error> {
        Ok(Self { content, root: DeTable::parse(content)?.into_inner() })
    }

    /// The value at a path of keys and of indexes of lists. `None`: it is not written.
    pub(super) fn written(&self, path: &[&str]) -> Option<Written> {
        let (first, rest) = path.split_first()?;
        let mut value = self.root.get(*first)?;
        for step in rest {
            value = match value.get_ref() {
                DeValue::Table(table) => match table.get(*step) {
                    // A section in place of a list with one entry.
                    None if *step == "0" => value,
                    found => found?,
                },
                DeValue::Array(list) => list.get(step.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        let mut origins = Vec::new();
        add_origins(value, &mut origins);
        Some(Written { line: self.line(value.span().start), origins })
    }

    /// The line of a section or key.
    pub(super) fn line_of(&self, path: &[&str]) -> Option<usize> {
        self.written(path).map(|written| written.line)
    }

    fn line(&self, at: usize) -> usize {
        position(self.content, at).0
    }
}

fn add_origins(value: &Spanned<DeValue<'_>>, origins: &mut Vec<Origin>) {
    match value.get_ref() {
        DeValue::String(text) => origins.push(Origin::of(text)),
        DeValue::Array(list) => list.iter().for_each(|value| add_origins(value, origins)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
[orders.source]
brokers = [
  \"${A}\",
  \"b\",
]
settings = { x = 1 }

[orders.clickhouse]
password = \"file:/run/x\"
";

    #[test]
    fn values_have_their_line_and_their_origins() {
        let document = Document::parse(FILE).unwrap();
        let origin = |variables: &[&str], file: Option<&str>| Origin {
            variables: variables.iter().map(|name| (*name).to_owned()).collect(),
            file: file.map(str::to_owned),
        };
        let brokers = document.written(&["orders", "source", "brokers"]).unwrap();
        assert_eq!(brokers, Written { line: 3, origins: vec![origin(&["A"], None), Origin::default()] });
        assert_eq!(document.line_of(&["orders", "source", "settings", "x"]), Some(7));
        assert_eq!(document.line_of(&["orders", "clickhouse"]), Some(9));
        let password = document.written(&["orders", "clickhouse", "password"]).unwrap();
        assert_eq!(password.origins, [origin(&[], Some("/run/x"))]);
        assert_eq!(document.line_of(&["orders", "source", "topics"]), None);
    }
}
