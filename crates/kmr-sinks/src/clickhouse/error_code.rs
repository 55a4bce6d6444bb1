//! ClickHouse's error codes, by the recovery that they allow.

use crate::clickhouse::batch::exception::{Origin, origin};

/// What a server's error means for the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorClass {
    /// A row of the batch is at fault.
    Data,
    /// The table changed since the consumer started.
    Schema,
    /// The error is temporary: overload, memory, network, an unavailable replica.
    Transient,
    /// Inserts create parts faster than the server merges them. The error is temporary if inserts
    /// slow down.
    TooManyParts,
    /// The rows of one insert belong to more table partitions than allowed. Fewer rows may be
    /// accepted.
    TooManyPartitions,
    /// A materialized view on the table rejects a row. The rows are stored in the table itself, and
    /// every retry would store them again.
    View,
    /// An operator has to act: credentials, permissions, a missing table.
    Fatal,
}

impl ErrorClass {
    /// Whether a retry of the same batch may succeed.
    pub fn is_retryable(self) -> bool {
        matches!(self, ErrorClass::Transient | ErrorClass::TooManyParts)
    }
}

/// The class of an error code with this HTTP status and this whole message.
///
/// The numbers were compared with their names on a server of version 26.7 (`errorCodeToName`). For
/// other codes the status decides: ClickHouse sends 4xx for mistakes of the client.
pub(crate) fn classify(code: u32, status: u16, message: &str) -> ErrorClass {
    let class = listed(code, message).unwrap_or({
        let clients_fault = (400..500).contains(&status) && status != 408 && status != 429;
        if clients_fault { ErrorClass::Fatal } else { ErrorClass::Transient }
    });
    match (class, origin(code, message)) {
        // A retry or a bisection would store the rows in the table itself once more.
        (ErrorClass::Data | ErrorClass::TooManyPartitions, Origin::View) => ErrorClass::View,
        (ErrorClass::Schema, Origin::Parse) => ErrorClass::Data,
        (class, _) => class,
    }
}

fn listed(code: u32, message: &str) -> Option<ErrorClass> {
    Some(match code {
        6 | 26 | 27 | 32 | 38 | 41 | 53 | 69 | 70 | 72 | 128 | 131 | 153 | 190 | 321 | 349 | 395 | 407
        | 441 | 469 => ErrorClass::Data,
        16 | 20 | 33 | 36 | 47 | 117 => ErrorClass::Schema,
        60 | 81 | 115 | 164 | 192..=195 | 497 | 516 => ErrorClass::Fatal,
        // One code, two errors. This one is permanent: a block touches too many table partitions.
        252 if message.contains("partitions for single INSERT block") => ErrorClass::TooManyPartitions,
        252 => ErrorClass::TooManyParts,
        159
        | 160
        | 173
        | 198
        | 201..=203
        | 209
        | 210
        | 236
        | 241..=243
        | 279
        | 285
        | 286
        | 319
        | 394
        | 425
        | 439
        | 473
        | 499
        | 692
        | 722
        | 745
        | 999 => ErrorClass::Transient,
        _ => return None,
    })
}

/// The remedy, in a few words.
pub(crate) fn remedy(code: u32, class: ErrorClass) -> &'static str {
    match (code, class) {
        (60, _) => "create the table, or correct its name or .database()",
        (81, _) => "create the database, or correct .database()",
        (115, _) => "remove the .setting() that this server does not know, or update the server",
        (164, _) => "the user is read-only: use one that can insert",
        (192..=195 | 516, _) => "check .user() and .password(), or .bearer_token()",
        (497, _) => "grant INSERT and SHOW COLUMNS on the table to the user",
        (285 | 286 | 319, ErrorClass::Transient) => {
            "not enough replicas have the rows (.insert_quorum()): start the replicas"
        }
        (242, ErrorClass::Transient) => "the table accepts no rows for now: check that its Keeper responds",
        (_, ErrorClass::TooManyPartitions) => {
            "the batch belongs to too many table partitions: lower .max_rows(), use a coarser PARTITION BY, or raise the limit \
             with .setting(\"max_partitions_per_insert_block\", …); a planned block of exactly-once mode \
             needs the higher limit"
        }
        (_, ErrorClass::Data) => "correct the mapping or the table",
        (_, ErrorClass::Schema) => "the table changed since the start: check its columns and restart",
        (_, ErrorClass::View) => {
            "the rows are stored in the table itself: correct the view, or detach it, before the consumer restarts"
        }
        (_, ErrorClass::TooManyParts) => {
            "raise .max_rows() or .max_age() so that fewer, larger parts are written"
        }
        // True in a log of retries, and after the last one.
        (_, ErrorClass::Transient) => "a retry may succeed",
        (_, ErrorClass::Fatal) => "see the server's message and log",
    }
}

/// Finds `Code: 60. DB::Exception: text` in a body, at its start or after other output.
pub(crate) fn find_exception(text: &str) -> Option<(u32, &str)> {
    text.match_indices("Code: ").find_map(|(at, prefix)| {
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

    #[test]
    fn listed_codes_have_their_class_with_every_status() {
        for (code, class) in [
            (6, ErrorClass::Data),
            (469, ErrorClass::Data),
            (33, ErrorClass::Schema),
            (516, ErrorClass::Fatal),
            (60, ErrorClass::Fatal),
            (241, ErrorClass::Transient),
            (999, ErrorClass::Transient),
            (252, ErrorClass::TooManyParts),
        ] {
            assert_eq!(classify(code, 500, ""), class, "code {code}");
            assert_eq!(classify(code, 200, ""), class, "code {code}");
        }
    }

    #[test]
    fn too_many_table_partitions_is_not_too_many_parts() {
        let text = "Code: 252. DB::Exception: Too many partitions for single INSERT block (more than 100).";
        assert_eq!(classify(252, 500, text), ErrorClass::TooManyPartitions);
        assert!(remedy(252, ErrorClass::TooManyPartitions).contains("PARTITION BY"));
    }

    #[test]
    fn the_stage_of_an_insert_decides_between_row_table_and_view() {
        let row = "Cannot parse JSON object here: {: (at row 2)\n: While executing BinaryRowInputFormat. (INCORRECT_DATA)";
        assert_eq!(classify(117, 400, row), ErrorClass::Data);
        let header =
            "Type of 'd' must be Date32: (while reading header): While executing BinaryRowInputFormat.";
        assert_eq!(classify(117, 400, header), ErrorClass::Schema);
        let view =
            "Constraint `c` is violated at row 51: while pushing to view kmr.v2. (VIOLATED_CONSTRAINT)";
        assert_eq!(classify(469, 500, view), ErrorClass::View);
        // A temporary error is temporary in a view, too.
        assert_eq!(classify(241, 500, "Memory: while pushing to view kmr.v."), ErrorClass::Transient);
    }

    #[test]
    fn unlisted_codes_follow_the_status() {
        assert_eq!(classify(62, 400, ""), ErrorClass::Fatal);
        assert_eq!(classify(4711, 500, ""), ErrorClass::Transient);
        assert_eq!(classify(4711, 429, ""), ErrorClass::Transient);
    }

    #[test]
    fn exceptions_are_found_after_other_output() {
        assert_eq!(find_exception("1\t2\nCode: 209. DB::Exception: Timeout"), Some((209, "Timeout")));
        assert_eq!(find_exception("Code: 60. DB::NetException: x").map(|(code, _)| code), Some(60));
        assert_eq!(find_exception("Zip Code: 1010 Vienna"), None);
        assert_eq!(find_exception(""), None);
    }
}
