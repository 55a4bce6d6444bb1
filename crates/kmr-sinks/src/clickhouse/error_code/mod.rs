//! ClickHouse's error codes, by the recovery that they allow.
//!
//! [`list`] has the codes, [`place`] reads where the server raised an error, and both together
//! decide. docs/clickhouse-errors.md is generated from them.

mod list;
#[cfg(test)]
mod page;
pub(crate) mod place;

use crate::clickhouse::error_code::list::{Kind, group};
use crate::clickhouse::error_code::place::{Place, Stage};

/// What a server's error means for the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorClass {
    /// A row of the batch is at fault.
    Data,
    /// The table changed since the consumer started.
    Schema,
    /// The error is temporary, and the server rejected the insert before the write: overload,
    /// memory, a table that accepts no rows for now.
    Transient,
    /// The error is temporary, and rows may be stored: a lost connection to a shard or to Keeper, a
    /// time limit, a temporary error in a view. Only a retry of the unchanged batch is safe.
    InDoubt,
    /// Inserts create parts faster than the server merges them. The error is temporary if inserts
    /// slow down.
    TooManyParts,
    /// The rows of one insert belong to more table partitions than allowed. Fewer rows may be
    /// accepted.
    TooManyPartitions,
    /// A materialized view on the table fails. The rows are stored in the table itself, and every
    /// retry would store them again.
    View,
    /// A shard of a Distributed table rejects a row. Other shards may have stored their rows.
    Shard,
    /// kmr does not know the code, and the server's text names no place. A few retries are allowed.
    Unknown,
    /// An operator has to act: credentials, permissions, settings, a missing table.
    Fatal,
}

impl ErrorClass {
    /// Whether a retry of the same batch may succeed.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            ErrorClass::Transient | ErrorClass::InDoubt | ErrorClass::TooManyParts | ErrorClass::Unknown
        )
    }
}

/// What a failed insert may have stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stored {
    /// Nothing: the server rejected the insert before the write.
    Nothing,
    /// Rows of some table partitions, if the table has several. A server stores the partitions of
    /// an insert one after another.
    Partitions,
    /// Rows of some shards.
    Shards,
    /// Everything or nothing.
    Unknown,
    /// All rows in the table itself; a view failed.
    Table,
}

/// What an error code with this message means, and what the insert may have stored.
///
/// The code decides with the place where the server raised it. The HTTP status decides nothing: the
/// server sends 500 for rejected rows and 400 for temporary errors.
pub(crate) fn classify(code: u32, message: &str) -> (ErrorClass, Stored) {
    let kind = kind(code, message);
    let place = Place::of(code, message);
    if place.in_view {
        return (in_view(kind, place), Stored::Table);
    }
    if place.in_shard {
        return (in_shard(kind, place, message), Stored::Shards);
    }
    match place.stage {
        Stage::Header => in_header(kind),
        Stage::Reading | Stage::Row | Stage::Function | Stage::Constraint => in_row(kind, place.stage),
        Stage::Other => elsewhere(kind),
    }
}

fn kind(code: u32, message: &str) -> Option<Kind> {
    let kind = group(code)?.kind;
    // One code, two errors. This one is permanent: a block touches too many table partitions.
    let is_limit = kind == Kind::Parts && message.contains("partitions for single INSERT block");
    Some(if is_limit { Kind::Partitions } else { kind })
}

fn is_temporary(kind: Option<Kind>) -> bool {
    matches!(kind, Some(Kind::Rejected | Kind::Memory | Kind::Doubt | Kind::Parts))
}

/// An error of a materialized view: the rows are stored in the table itself.
fn in_view(kind: Option<Kind>, place: Place) -> ErrorClass {
    if place.lost_shard || is_temporary(kind) { ErrorClass::InDoubt } else { ErrorClass::View }
}

/// An error of a shard: others may have stored their rows.
fn in_shard(kind: Option<Kind>, place: Place, message: &str) -> ErrorClass {
    let is_missing = message.contains("There is no table `");
    match kind {
        Some(Kind::Denied) => ErrorClass::Fatal,
        _ if place.lost_shard => ErrorClass::InDoubt,
        Some(Kind::Doubt) if is_missing => ErrorClass::Fatal,
        kind if is_temporary(kind) => ErrorClass::InDoubt,
        _ if place.stage != Stage::Other => ErrorClass::Shard,
        Some(Kind::Statement) => ErrorClass::Fatal,
        Some(Kind::Row | Kind::Schema | Kind::Partitions) => ErrorClass::Shard,
        Some(Kind::Truncated) => ErrorClass::InDoubt,
        _ => ErrorClass::Unknown,
    }
}

/// An error of the body's header: nothing was read.
fn in_header(kind: Option<Kind>) -> (ErrorClass, Stored) {
    match kind {
        Some(Kind::Row | Kind::Truncated | Kind::Schema) | None => (ErrorClass::Schema, Stored::Nothing),
        kind => elsewhere(kind),
    }
}

/// An error of a row's values: while they are read, or in a function of them. Nothing was written,
/// except that keys and indices are computed for one table partition after another.
fn in_row(kind: Option<Kind>, stage: Stage) -> (ErrorClass, Stored) {
    let stored = if stage == Stage::Function { Stored::Partitions } else { Stored::Nothing };
    match kind {
        Some(Kind::Denied | Kind::Doubt | Kind::Parts | Kind::Partitions) => elsewhere(kind),
        Some(Kind::Rejected | Kind::Memory) => (ErrorClass::Transient, stored),
        Some(Kind::Schema) if stage == Stage::Reading => (ErrorClass::Schema, stored),
        _ => (ErrorClass::Data, stored),
    }
}

/// An error without a place in its text.
fn elsewhere(kind: Option<Kind>) -> (ErrorClass, Stored) {
    match kind {
        Some(Kind::Row) => (ErrorClass::Data, Stored::Partitions),
        Some(Kind::Schema) => (ErrorClass::Schema, Stored::Nothing),
        Some(Kind::Rejected) => (ErrorClass::Transient, Stored::Nothing),
        Some(Kind::Memory) => (ErrorClass::Transient, Stored::Partitions),
        Some(Kind::Parts) => (ErrorClass::TooManyParts, Stored::Nothing),
        Some(Kind::Partitions) => (ErrorClass::TooManyPartitions, Stored::Nothing),
        Some(Kind::Doubt | Kind::Truncated) => (ErrorClass::InDoubt, Stored::Unknown),
        Some(Kind::Denied | Kind::Statement) => (ErrorClass::Fatal, Stored::Nothing),
        None => (ErrorClass::Unknown, Stored::Unknown),
    }
}

/// The remedy, in a few words.
pub(crate) fn remedy(code: u32, class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Data => "correct the mapping or the table",
        ErrorClass::Schema => "the table changed since the start: check its columns and restart",
        ErrorClass::View => {
            "the rows are stored in the table itself, and outside of exactly-once mode each restart stores them again: correct \
             the view, or detach it, before the consumer restarts"
        }
        ErrorClass::Shard => {
            "other shards may have stored their rows, and outside of exactly-once mode each restart stores them again: correct \
             the shards' tables before the consumer restarts, or insert into them directly"
        }
        ErrorClass::TooManyPartitions => {
            "the batch belongs to too many table partitions: lower .max_rows(), use a coarser PARTITION BY, or raise the limit \
             with .setting(\"max_partitions_per_insert_block\", …); a planned block of exactly-once mode \
             needs the higher limit"
        }
        ErrorClass::Unknown => "kmr does not know this code: see the server's message and log",
        ErrorClass::Transient | ErrorClass::InDoubt | ErrorClass::TooManyParts | ErrorClass::Fatal => {
            group(code).map_or("see the server's message and log", |group| group.remedy)
        }
    }
}

/// Finds `Code: 60. DB::Exception: text` in a body. After the output of a query ClickHouse writes
/// it at the start of a line, or in a JSON object of its own. With `in_output`, other places are
/// part of a value, such as the comment of a column.
pub(crate) fn find_exception(text: &str, in_output: bool) -> Option<(u32, &str)> {
    let is_at_start = |at: usize| {
        let line = text[..at].rsplit('\n').next().unwrap_or_default();
        matches!(line, "" | "{\"exception\": \"" | "{\"exception\":\"")
    };
    text.match_indices("Code: ").filter(|(at, _)| !in_output || is_at_start(*at)).find_map(|(at, prefix)| {
        let rest = &text[at + prefix.len()..];
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let code = rest[..digits].parse().ok()?;
        let (_, message) = rest[digits..].strip_prefix(". DB::")?.split_once(": ")?;
        Some((code, message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(code: u32, message: &str) -> ErrorClass {
        classify(code, message).0
    }

    #[test]
    fn too_many_table_partitions_is_not_too_many_parts() {
        let text = "Code: 252. DB::Exception: Too many partitions for single INSERT block (more than 100).";
        assert_eq!(class(252, text), ErrorClass::TooManyPartitions);
        assert_eq!(class(252, "Too many parts (300)"), ErrorClass::TooManyParts);
        assert!(remedy(252, ErrorClass::TooManyPartitions).contains("PARTITION BY"));
        assert!(remedy(252, ErrorClass::TooManyParts).contains(".max_age()"));
    }

    #[test]
    fn the_stage_of_an_insert_decides_between_row_table_and_view() {
        let row = "Cannot parse JSON object here: {: (at row 2)\n: While executing BinaryRowInputFormat. (INCORRECT_DATA)";
        assert_eq!(class(117, row), ErrorClass::Data);
        let header =
            "Type of 'd' must be Date32: (while reading header): While executing BinaryRowInputFormat.";
        assert_eq!(class(117, header), ErrorClass::Schema);
        let view =
            "Constraint `c` is violated at row 51: while pushing to view kmr.v2. (VIOLATED_CONSTRAINT)";
        assert_eq!(class(469, view), ErrorClass::View);
        // A temporary error is temporary in a view, too, but the rows are stored.
        let view = "Memory: while pushing to view kmr.v.";
        assert_eq!(classify(241, view), (ErrorClass::InDoubt, Stored::Table));
        // The sign of a CollapsingMergeTree is checked in the write.
        assert_eq!(class(117, "Incorrect data: Sign = 5 (must be 1 or -1)."), ErrorClass::Data);
    }

    #[test]
    fn codes_of_functions_are_the_rows_fault_and_those_of_the_server_are_not() {
        let function = |code| class(code, "x: while executing 'FUNCTION f(a :: 0) -> f(a) UInt8 : 1'. (X)");
        for code in [33, 36, 48, 62, 117, 344, 376, 427, 467, 675, 676, 691, 4711] {
            assert_eq!(function(code), ErrorClass::Data, "code {code}");
        }
        assert_eq!(function(241), ErrorClass::Transient);
        assert_eq!(function(209), ErrorClass::InDoubt);
        assert_eq!(function(497), ErrorClass::Fatal);
    }

    #[test]
    fn a_lost_shard_is_no_rows_fault() {
        let lost = "Attempt to read after eof: while receiving packet from 172.17.0.6:9000, local address: 172.17.0.2:45096: \
            Insertion status:\nWrote 1 blocks and 20 rows on shard 0 replica 0, 172.17.0.6:9000 (average 1 ms per block)\n. \
            (ATTEMPT_TO_READ_AFTER_EOF) (version 26.7.2.1)";
        let missing = "All connection tries failed. Log: \n\nThere is no table `k`.`t` on server: 172.17.0.6:9000\n\n: Insertion \
            status:\nWrote 0 blocks and 0 rows on shard 0 replica 0, 172.17.0.6:9000 (average 0 ms per block)\n. (X)";
        for code in [32, 33, 4711] {
            assert_eq!(classify(code, lost), (ErrorClass::InDoubt, Stored::Shards), "code {code}");
        }
        assert_eq!(class(32, "Attempt to read after eof"), ErrorClass::InDoubt);
        assert_eq!(class(279, missing), ErrorClass::Fatal);
    }

    #[test]
    fn the_remedy_of_a_setting_is_in_the_users_profile() {
        let text = "Setting async_insert should not be changed. (SETTING_CONSTRAINT_VIOLATION)";
        assert_eq!(classify(452, text), (ErrorClass::Fatal, Stored::Nothing));
        assert!(remedy(452, ErrorClass::Fatal).contains("profile"));
    }

    #[test]
    fn exceptions_are_found_after_other_output() {
        let code = |text, in_output| find_exception(text, in_output).map(|(code, _)| code);
        let after_rows = "1\t2\nCode: 209. DB::Exception: Timeout";
        // As newer servers write it, with a random tag.
        let tagged = "{\"a\":0}\r\n__exception__\r\ntag\r\nCode: 395. DB::Exception: x\r\n271 tag\r\n__exception__\r\n";
        let as_json = "{\"a\":0}\n{\"exception\": \"Code: 395. DB::Exception: x\"}";
        let wrapped = "[ User \"a\" ]: error: Code: 60. DB::Exception: x";
        for in_output in [true, false] {
            assert_eq!(find_exception(after_rows, in_output), Some((209, "Timeout")));
            assert_eq!(code("Code: 60. DB::NetException: x", in_output), Some(60));
            assert_eq!(code(tagged, in_output), Some(395));
            assert_eq!(code(as_json, in_output), Some(395));
            assert_eq!(code(wrapped, in_output), (!in_output).then_some(60));
            assert_eq!(code("Zip Code: 1010 Vienna", in_output), None);
            assert_eq!(code("", in_output), None);
        }
    }

    #[test]
    fn an_exception_in_a_comment_is_no_exception_of_the_query() {
        let described = r#"{"name":"a","type":"UInt8","comment":"as in Code: 60. DB::Exception: x\nCode: 60. DB::Exception: y"}"#;
        assert_eq!(find_exception(described, true), None);
    }
}
