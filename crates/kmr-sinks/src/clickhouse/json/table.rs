//! What the rows of a writer share: the plan, the policies, and the states of map tasks.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kmr_core::{BoxError, Record, StopConsumer};
use serde::Deserialize;

use super::cursor::Cursor;
use super::error::JsonError;
use super::fault::Fault;
use super::object::{RowDecoder, RowState};
use super::options::{JsonOptions, UnknownFields};
use super::plan::Plan;
use super::row::{JsonRow, Source, check_start, check_utf8};
use super::rules::{Rules, is_utc};
use super::type_default::put_default;
use super::variant::make_variants_strict;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::endpoint::Endpoint;
use crate::clickhouse::http::hosts::Hosts;
use crate::clickhouse::http::query::select;
use crate::clickhouse::http::request::post;
use crate::clickhouse::http::response;
use crate::clickhouse::table::column::Column;
use crate::clickhouse::table::name::literal;
use crate::clickhouse::table::ranges::OutOfRange;
use crate::clickhouse::table::schema::{Schema, schema_error};
use crate::clickhouse::table::startup::{StartOptions, until_ready};
use crate::clickhouse::table::types::Type;

/// A larger buffer of waiting values is not kept for other rows, bytes.
const KEPT_BUFFER: usize = 1 << 20;

/// The decoder of a writer's rows.
pub(crate) struct JsonTable {
    /// The table's quoted name.
    name: String,
    /// The columns of a row's fields.
    columns: Vec<Column>,
    plan: Plan,
    rules: Rules,
    unknown: UnknownFields,
    /// States of map tasks that have ended their chunk.
    states: Mutex<Vec<RowState>>,
}

impl fmt::Debug for JsonTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonTable").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// What the server reports at the start.
pub(super) struct ServerFacts {
    /// For each column the value of a missing field, in RowBinary.
    pub(super) defaults: Vec<Vec<u8>>,
    /// Whether the server's own time zone is UTC.
    pub(super) server_is_utc: bool,
}

#[derive(Deserialize)]
struct ServerZone {
    zone: String,
}

impl JsonTable {
    /// Asks the server for the constant DEFAULTs of the columns, and for its time zone.
    pub(crate) async fn start(
        hosts: &Hosts,
        table: &str,
        schema: &Schema,
        options: &JsonOptions,
        out_of_range: OutOfRange,
        start: StartOptions,
    ) -> Result<Self, ClickHouseError> {
        let columns = schema.fields();
        let mut defaults = Vec::with_capacity(columns.len());
        for column in columns {
            defaults.push(match &column.constant_default {
                None => type_default(&column.ty),
                Some(expression) => {
                    let request = |endpoint| constant(endpoint, table, expression, column);
                    until_ready(hosts, start.start_timeout, request).await?.1
                }
            });
        }
        let zone = |endpoint| select::<ServerZone>(endpoint, table, "SELECT timezone() AS zone");
        let (_, zones) = until_ready(hosts, start.start_timeout, zone).await?;
        let server_is_utc = zones.first().is_some_and(|found| is_utc(&found.zone));
        let server = ServerFacts { defaults, server_is_utc };
        Self::new(table, columns, options, out_of_range, server)
            .map_err(|problem| schema_error(table, problem))
    }

    pub(super) fn new(
        name: &str,
        columns: &[Column],
        options: &JsonOptions,
        out_of_range: OutOfRange,
        server: ServerFacts,
    ) -> Result<Self, String> {
        let rules = Rules {
            out_of_range,
            missing: options.missing,
            nulls: options.nulls,
            duplicates: options.duplicates,
            numbers_as_text: options.numbers_as_text,
            excess_digits: options.excess_digits,
            local_times: options.local_times,
            rejects_unknown: options.unknown == UnknownFields::Reject,
            server_is_utc: server.server_is_utc,
        };
        let plan = Plan::new(columns, options, server.defaults)?;
        let (name, mut columns, unknown) = (name.to_owned(), columns.to_vec(), options.unknown.clone());
        columns.iter_mut().for_each(|column| make_variants_strict(&mut column.ty));
        Ok(Self { name, columns, plan, rules, unknown, states: Mutex::default() })
    }

    /// Appends the row of the object that is `text`.
    pub(super) fn encode(&self, text: &[u8], state: &mut RowState, out: &mut Vec<u8>) -> Result<(), Fault> {
        check_start(text)?;
        check_utf8(text)?;
        let Self { plan, rules, unknown, columns, .. } = self;
        RowDecoder { plan, rules, unknown, columns, state, next: 0 }.row(&mut Cursor::new(text), out)
    }

    /// The error of a row whose text starts at `base` in its record.
    pub(super) fn error(&self, fault: &Fault, base: usize) -> JsonError {
        let index = fault.parts().column;
        let column = index.and_then(|index| self.columns.get(index).zip(self.plan.columns.get(index)));
        let column = column.map(|(column, planned)| (column, &planned.path[..]));
        JsonError::of_row(fault, &self.name, column, base)
    }

    pub(super) fn new_state(&self) -> RowState {
        RowState::new(&self.plan)
    }

    fn take_state(&self) -> Box<RowState> {
        let kept = self.states.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Box::new(kept.unwrap_or_else(|| self.new_state()))
    }
}

/// The bytes of the default of a type.
pub(super) fn type_default(ty: &Type) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_default(ty, &mut bytes);
    bytes
}

/// A constant DEFAULT in RowBinary, by the server.
async fn constant(
    endpoint: &Endpoint,
    table: &str,
    expression: &str,
    column: &Column,
) -> Result<Vec<u8>, ClickHouseError> {
    let ty = literal(&column.type_text);
    let statement = format!("SELECT CAST(({expression}), {ty}) FORMAT RowBinary");
    let settings = [("output_format_binary_write_json_as_string", "1"), ("wait_end_of_query", "1")];
    let settings = if column.ty.holds_json() { &settings[..] } else { &settings[1..] };
    let response = post(endpoint, &endpoint.target(settings), vec![Bytes::from(statement)], None).await?;
    response::check(&response, endpoint, table)?;
    Ok(response.body.to_vec())
}

/// A state of the table's rows, returned when the chunk ends.
pub(crate) struct Lease {
    table: Arc<JsonTable>,
    state: Option<Box<RowState>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(state) = self.state.take()
            && state.waiting_capacity() <= KEPT_BUFFER
        {
            self.table.states.lock().unwrap_or_else(PoisonError::into_inner).push(*state);
        }
    }
}

impl JsonRow {
    /// Appends the row to `out`.
    #[inline]
    pub(in crate::clickhouse) fn encode_into(
        &self,
        table: &Arc<JsonTable>,
        record: Option<&Record<'_>>,
        lease: &mut Option<Lease>,
        out: &mut Vec<u8>,
    ) -> Result<(), BoxError> {
        let (text, base) = match (&self.0, record) {
            (Source::Owned(text), _) => (&**text, 0),
            (_, Some(record)) => self.located(record),
            (_, None) => return Err(StopConsumer::new(no_record(table)).into()),
        };
        let lease =
            lease.get_or_insert_with(|| Lease { table: Arc::clone(table), state: Some(table.take_state()) });
        let state = lease.state.get_or_insert_with(|| table.take_state());
        table
            .encode(text, state, out)
            .map_err(|fault| ClickHouseError::Json(Box::new(table.error(&fault, base))).into())
    }
}

fn no_record(table: &JsonTable) -> ClickHouseError {
    let problem = "a JsonRow of a record's payload was pushed without the record; downstream of another reduce, rows must \
                   own their text: make them from a String";
    ClickHouseError::Schema { table: table.name.clone(), problem: problem.into() }
}
