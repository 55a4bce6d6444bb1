//! JSON objects straight into the columns of a table, without a struct and without a tree of
//! values: [`JsonRow`].
//!
//! The start makes a `plan` from the described table: a tree of keys that lead to columns. An
//! object is read once, from left to right. `keys` finds the column of a key, `value` writes the
//! value in the type of the column (`numeric`, `text`, `compound`), and `object` puts the columns
//! into their order. `cursor`, `skip` and `escape` know the grammar of JSON. Each error has the
//! place of its value (`fault`), and becomes a [`JsonError`] at the end. `lookup` finds one value,
//! for filters.

mod compound;
mod constant;
mod cursor;
mod error;
mod escape;
mod fault;
mod keys;
mod lookup;
mod nested;
mod number;
mod numeric;
mod object;
pub(super) mod options;
mod plan;
pub(super) mod row;
mod rules;
mod schema;
mod skip;
pub(super) mod table;
mod text;
mod time;
mod type_default;
mod value;
mod variant;
mod wide;

#[cfg(test)]
mod tests;

pub use error::JsonError;
pub use lookup::JsonValue;
pub use options::{
    Duplicates, EpochUnit, ExcessDigits, JsonOptions, LocalTimes, Missing, Nulls, NumbersAsText,
    UnknownFields,
};
pub use row::{JsonRow, JsonRows};
pub(super) use schema::json_schema;
