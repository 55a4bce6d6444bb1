//! The table as the server describes it, and whether a row type fits it.

pub(super) mod column;
pub(super) mod conversion;
pub(super) mod described;
pub(super) mod engine;
pub(super) mod name;
pub(super) mod preflight;
pub(super) mod ranges;
pub(super) mod record_columns;
pub(super) mod schema;
pub(super) mod schema_change;
pub(super) mod server_ranges;
mod settings_in_force;
pub(super) mod startup;
mod storage;
mod type_parser;
pub(super) mod types;
pub(super) mod views;
