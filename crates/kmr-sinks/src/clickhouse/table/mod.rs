//! The table as the server describes it, and how a row type fits it.

pub(super) mod preflight;
pub(super) mod record_columns;
pub(super) mod schema;
pub(super) mod schema_change;
pub(super) mod startup;
pub(super) mod types;
