//! Decodes JSON into columns without a server.

mod bad_input;
mod differential;
mod nested;
mod policies;
mod records;
mod types;

use kmr_core::BoxError;

use super::object::RowState;
use super::options::{JsonOptions, UnknownFields};
use super::schema::json_schema;
use super::table::{JsonTable, ServerFacts, type_default};
use crate::clickhouse::json::JsonError;
use crate::clickhouse::table::column::Column;
use crate::clickhouse::table::column::tests::described;
use crate::clickhouse::table::described::DescribedTable;
use crate::clickhouse::table::ranges::OutOfRange;
use crate::clickhouse::table::record_columns::RecordColumns;
use crate::clickhouse::table::schema::Schema;

/// A table and the decoder of its rows.
pub(super) struct Decoder {
    pub(super) table: DescribedTable,
    state: RowState,
}

impl Decoder {
    /// Columns of name and type, without a DEFAULT.
    pub(super) fn new(columns: &[(&str, &str)], options: &JsonOptions) -> Self {
        Self::with_policy(columns, options, OutOfRange::Reject)
    }

    pub(super) fn with_policy(columns: &[(&str, &str)], options: &JsonOptions, policy: OutOfRange) -> Self {
        let schema = schema(columns, options).unwrap();
        Self::with_defaults(schema, options, policy, |column| type_default(&column.ty)).unwrap()
    }

    pub(super) fn with_defaults(
        mut schema: Schema,
        options: &JsonOptions,
        policy: OutOfRange,
        default: impl Fn(&Column) -> Vec<u8>,
    ) -> Result<Self, String> {
        schema.set_ranges(&Default::default(), policy);
        let defaults = schema.columns.iter().map(default).collect();
        let json = {
            let server = ServerFacts { defaults, server_is_utc: true };
            JsonTable::new("`t`", &schema.columns, options, policy, server)?
        };
        let state = json.new_state();
        let table = DescribedTable::new("`t`".to_owned(), schema).with_json(Some(json));
        Ok(Self { table, state })
    }

    /// The row of an object, or the text of the error.
    pub(super) fn row(&mut self, text: impl AsRef<[u8]>) -> Result<Vec<u8>, Box<JsonError>> {
        let mut out = Vec::new();
        let json = self.table.json.as_ref().unwrap();
        json.encode(text.as_ref(), &mut self.state, &mut out)
            .map_err(|fault| Box::new(json.error(&fault, 0)))?;
        Ok(out)
    }

    pub(super) fn problem(&mut self, text: impl AsRef<[u8]>) -> String {
        self.row(text).unwrap_err().to_string()
    }
}

pub(super) fn schema(columns: &[(&str, &str)], options: &JsonOptions) -> Result<Schema, String> {
    let columns: Vec<_> = columns.iter().map(|(name, ty)| (*name, *ty, "")).collect();
    json_schema("`t`", &described(&columns), &RecordColumns::new(), options)
        .map_err(|error| error.to_string())
}

/// One value in a column of this type.
pub(super) fn value(ty: &str, json: &str) -> Result<Vec<u8>, Box<JsonError>> {
    value_with(ty, json, &JsonOptions::new(), OutOfRange::Reject)
}

pub(super) fn value_with(
    ty: &str,
    json: &str,
    options: &JsonOptions,
    policy: OutOfRange,
) -> Result<Vec<u8>, Box<JsonError>> {
    Decoder::with_policy(&[("v", ty)], options, policy).row(format!("{{\"v\":{json}}}"))
}

pub(super) fn collect(column: &str) -> JsonOptions {
    JsonOptions::new().unknown_fields(UnknownFields::Collect(column.into()))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn text_of(error: BoxError) -> String {
    kmr_core::error_chain(&*error)
}
