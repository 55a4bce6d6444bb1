//! The columns of a table, as the server describes them.

use serde::Deserialize;

use crate::clickhouse::table::types::Type;

/// A column of an insert.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// The type as the server spells it.
    pub(crate) type_text: String,
    pub(crate) ty: Type,
    /// Whether NULL stands for the column's DEFAULT: then type and text are those of the table's
    /// column in a `Nullable`, which the server converts.
    pub(crate) null_is_default: bool,
    /// A DEFAULT that is a constant, for rows that may lack the column.
    pub(crate) constant_default: Option<String>,
}

impl Column {
    pub(crate) fn new(name: String, type_text: String, ty: Type) -> Self {
        Self { name, type_text, ty, null_is_default: false, constant_default: None }
    }

    /// The type of the values that are no DEFAULT.
    pub(crate) fn value_type(&self) -> &Type {
        match &self.ty {
            Type::Nullable(inner) if self.null_is_default => inner,
            ty => ty,
        }
    }

    /// The type in the table.
    pub(crate) fn table_type(&self) -> String {
        let text = self.type_text.as_str();
        if !self.null_is_default {
            return text.to_owned();
        }
        let inside = |prefix, text: &'_ str| text.strip_prefix(prefix)?.strip_suffix(')').map(str::to_owned);
        match inside("LowCardinality(Nullable(", text) {
            Some(inner) => format!("LowCardinality({inner}"),
            None => inside("Nullable(", text).unwrap_or_else(|| text.to_owned()),
        }
    }
}

/// One line of `DESCRIBE TABLE … FORMAT JSONEachRow`.
#[derive(Debug, Deserialize)]
pub(crate) struct DescribedColumn {
    pub(crate) name: String,
    #[serde(rename = "type")]
    type_text: String,
    #[serde(rename = "default_type")]
    pub(crate) default_kind: String,
    /// The expression of the DEFAULT, or an empty text.
    #[serde(default)]
    pub(crate) default_expression: String,
}

impl DescribedColumn {
    pub(crate) fn new(name: String, type_text: String, default_kind: String) -> Self {
        Self { name, type_text, default_kind, default_expression: String::new() }
    }

    /// The type in one line. `DESCRIBE` spreads named tuples over several lines, and an insert
    /// compares the types of its header by their text. Line breaks inside quotes are escaped, so
    /// every line break is layout.
    pub(crate) fn type_in_one_line(&self) -> String {
        let mut line = String::with_capacity(self.type_text.len());
        for part in self.type_text.split('\n').map(str::trim) {
            if line.ends_with(',') {
                line.push(' ');
            }
            line.push_str(part);
        }
        line
    }

    pub(crate) fn is_insertable(&self) -> bool {
        !matches!(self.default_kind.as_str(), "MATERIALIZED" | "ALIAS")
    }

    pub(crate) fn to_column(&self) -> Column {
        let (name, ty) = (self.name.clone(), Type::parse(&self.type_text));
        Column::new(name, self.type_in_one_line(), ty)
    }
}

/// The statement that describes `table`, a quoted name.
pub(crate) fn describe_statement(table: &str) -> String {
    format!("DESCRIBE TABLE {table} FORMAT JSONEachRow")
}

/// Reads the response to [`describe_statement`].
pub(crate) fn read_description(body: &[u8]) -> Result<Vec<DescribedColumn>, serde_json::Error> {
    serde_json::Deserializer::from_slice(body).into_iter().collect()
}

/// The column `name`, if the table has it and accepts values for it.
pub(crate) fn insertable_column(described: &[DescribedColumn], name: &str) -> Option<Column> {
    let found = described.iter().find(|column| column.name == name)?;
    found.is_insertable().then(|| found.to_column())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Described columns of name, type and kind of default.
    pub(crate) fn described(columns: &[(&str, &str, &str)]) -> Vec<DescribedColumn> {
        let column = |(name, ty, kind): &(&str, &str, &str)| {
            DescribedColumn::new((*name).into(), (*ty).into(), (*kind).into())
        };
        columns.iter().map(column).collect()
    }

    #[test]
    fn descriptions_are_read_line_by_line() {
        let answer =
            br#"{"name":"a","type":"UInt8","default_type":"","default_expression":"","ttl_expression":""}
{"name":"b","type":"Tuple(\n    x UInt8,\n    y Tuple(\n        z String))","default_type":"DEFAULT"}
"#;
        let described = read_description(answer).unwrap();
        assert_eq!(described.len(), 2);
        assert_eq!(described[1].type_in_one_line(), "Tuple(x UInt8, y Tuple(z String))");
        assert!(read_description(b"<html>").is_err());
    }
}
