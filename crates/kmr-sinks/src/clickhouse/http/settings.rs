//! Settings that every request of the sink carries, whatever the user's profile sets.
//!
//! A profile can change what an insert means: it can answer an insert that stored nothing with
//! status 200, read the rows without their types, or put them into a file in place of the table.
//! So the sink pins what it relies on. A server that does not know a setting rejects the request
//! before it does anything. The sink then leaves that setting out: such a server cannot have the
//! behaviour that the setting controls.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clickhouse::error::ClickHouseError;

/// ClickHouse's code for an unknown setting.
const UNKNOWN_SETTING: u32 = 115;

/// The server's default for `max_insert_block_size`. The server keeps a batch of up to this many
/// rows in one block.
pub(crate) const BLOCK_ROWS: usize = 1_048_449;

/// The setting that names an insert, so that its repetition is recognised.
pub(crate) const TOKEN: &str = "insert_deduplication_token";

/// The setting with which an INSERT SELECT has the same deduplication as other inserts.
pub(crate) const DEDUPLICATE_INSERT_SELECT: &str = "deduplicate_insert_select";

/// Names and values of the pinned settings.
pub(crate) const PINNED: &[(&str, &str)] = &[
    // Reads the rows by the names and types of their header. Without them, a column that was
    // altered is read with the wrong width.
    ("input_format_with_names_use_header", "1"),
    ("input_format_with_types_use_header", "1"),
    ("input_format_binary_decode_types_in_binary_format", "0"),
    // `break` ends an insert early, with status 200.
    ("timeout_overflow_mode", "throw"),
    // One header for each 100 ms of an insert: more than a client accepts.
    ("send_progress_in_http_headers", "0"),
    // A Distributed table answers when its shards have the rows, not when its spool file has them.
    ("distributed_foreground_insert", "1"),
    // Rows that were encoded for an older type of a column are inserted by a SELECT. Its repetition
    // is stored twice if the profile disables this, or if the server calls the SELECT unstable.
    // Servers before 25.12 do not distinguish it from other inserts.
    (DEDUPLICATE_INSERT_SELECT, "enable_even_for_bad_queries"),
    // Each insert would overwrite the rows of the insert before.
    ("engine_file_truncate_on_insert", "0"),
    ("s3_truncate_on_insert", "0"),
    ("azure_truncate_on_insert", "0"),
    ("hdfs_truncate_on_insert", "0"),
    // End a block on the server, beside the sizes that every insert names.
    ("input_format_max_block_size_bytes", "0"),
    ("input_format_max_block_wait_ms", "0"),
    ("max_insert_block_size_bytes", "0"),
    ("use_strict_insert_block_limits", "0"),
    // Change the sink's own reads of the table's description and of system tables.
    ("additional_result_filter", ""),
    ("describe_compact_output", "0"),
    ("describe_include_subcolumns", "0"),
    ("limit", "0"),
    ("offset", "0"),
    ("output_format_json_array_of_rows", "0"),
    ("use_query_cache", "0"),
];

/// Settings of inserts into a table that keeps no rows itself. There the error of a view loses
/// rows. In other tables the rows are stored, so the user's profile decides.
pub(crate) const VIEWS_HAVE_THE_ROWS: &[(&str, &str)] = &[
    ("materialized_views_ignore_errors", "0"),
    ("ignore_materialized_views_with_dropped_target_table", "0"),
];

/// Older names of pinned settings, for servers that know only these.
const OLDER_NAMES: &[(&str, &str)] = &[("distributed_foreground_insert", "insert_distributed_sync")];

/// Whether a setting is pinned, by its present or its older name.
pub(crate) fn is_pinned(name: &str) -> bool {
    let is_old = |(_, older): &(&str, &str)| *older == name;
    PINNED.iter().any(|(pinned, _)| *pinned == name) || OLDER_NAMES.iter().any(is_old)
}

/// The pinned settings of one server.
#[derive(Debug)]
pub(crate) struct Pins(Mutex<Vec<(&'static str, &'static str)>>);

impl Pins {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(PINNED.to_vec()))
    }

    /// Passes the name and value of each setting to `add`.
    pub(crate) fn for_each(&self, add: impl FnMut((&'static str, &'static str))) {
        self.lock().iter().copied().for_each(add);
    }

    /// Whether this server knows the setting, as far as its answers have shown.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.lock().iter().any(|(pinned, _)| *pinned == name)
    }

    /// Adds settings, if they are not there.
    pub(crate) fn add(&self, settings: &[(&'static str, &'static str)]) {
        let mut pins = self.lock();
        for setting in settings {
            if !pins.contains(setting) {
                pins.push(*setting);
            }
        }
    }

    /// Leaves out the setting that the server does not know, by its error, or uses its older name.
    /// Returns whether the request can be sent again.
    pub(crate) fn adapt(&self, error: &ClickHouseError) -> bool {
        let ClickHouseError::Exception { code: UNKNOWN_SETTING, message, .. } = error else { return false };
        // The server goes on with similar names, which it knows.
        let message = message.split("Maybe you meant").next().unwrap_or(message);
        let is_named = |name: &str| {
            let words = message.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            words.into_iter().any(|word| word == name)
        };
        let mut pins = self.lock();
        let Some(at) = pins.iter().position(|(name, _)| is_named(name)) else { return false };
        let (unknown, value) = pins.remove(at);
        let older = OLDER_NAMES.iter().find(|(name, _)| *name == unknown);
        pins.extend(older.map(|(_, older)| (*older, value)));
        true
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(&'static str, &'static str)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Settings of an insert of up to `block_rows` rows, beside its token. The start sends them too, so
/// that a constraint of the user's profile is found there.
pub(crate) fn insert_settings(block_rows: &str, async_insert: bool) -> Vec<(&'static str, &str)> {
    let mut settings =
        vec![("wait_end_of_query", "1"), ("async_insert", if async_insert { "1" } else { "0" })];
    settings.extend(block_settings(block_rows));
    if async_insert {
        settings.push(("wait_for_async_insert", "1"));
    }
    settings
}

/// The settings of an insert that the start sends on requests that write nothing.
pub(crate) fn start_settings(block_rows: &str, async_insert: bool) -> Vec<(&'static str, &str)> {
    let mut settings = insert_settings(block_rows, async_insert);
    settings.push(("deduplicate_blocks_in_dependent_materialized_views", "1"));
    settings.push((TOKEN, "kmr-start"));
    settings
}

/// Settings that make an insert of up to `block_rows` rows one block on the server.
pub(crate) fn block_settings(block_rows: &str) -> [(&'static str, &str); 4] {
    [
        ("max_insert_block_size", block_rows),
        ("min_insert_block_size_rows", block_rows),
        ("min_insert_block_size_bytes", "0"),
        ("input_format_parallel_parsing", "0"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::error_code::{ErrorClass, Stored};

    fn unknown(message: &str, code: u32) -> ClickHouseError {
        ClickHouseError::Exception {
            address: "db:8123".into(),
            table: "`t`".into(),
            code,
            status: 404,
            class: ErrorClass::Fatal,
            stored: Stored::Nothing,
            message: message.into(),
            remedy: "",
        }
    }

    fn value(pins: &Pins, name: &str) -> Option<&'static str> {
        pins.lock().iter().find(|(pinned, _)| *pinned == name).map(|(_, value)| *value)
    }

    #[test]
    fn the_repetition_of_a_converting_insert_is_always_deduplicated() {
        let deduplicates = Some("enable_even_for_bad_queries");
        assert_eq!(value(&Pins::new(), "deduplicate_insert_select"), deduplicates);
    }

    #[test]
    fn a_setting_that_the_server_does_not_know_is_left_out_or_gets_its_older_name() {
        let pins = Pins::new();
        assert!(pins.adapt(&unknown("Unknown setting 'use_strict_insert_block_limits'", 115)));
        assert_eq!(value(&pins, "use_strict_insert_block_limits"), None);
        assert_eq!(pins.lock().len(), PINNED.len() - 1);
        let text = "Unknown setting 'limits': Maybe you meant ['limit','offset']. (UNKNOWN_SETTING)";
        assert!(!pins.adapt(&unknown(text, 115)), "the user's own setting is unknown");
        // A name within another name is another setting.
        assert!(!pins.adapt(&unknown("Setting max_result_rows_limit is neither a builtin setting nor", 115)));
        assert!(!pins.adapt(&unknown("Unknown setting 'limit'", 60)));
        let text =
            "Setting distributed_foreground_insert is neither a builtin setting nor started with the prefix";
        assert!(pins.adapt(&unknown(text, 115)));
        assert_eq!(value(&pins, "distributed_foreground_insert"), None);
        assert_eq!(value(&pins, "insert_distributed_sync"), Some("1"));
        assert!(!pins.adapt(&unknown(text, 115)), "a setting is left out once");
    }
}
