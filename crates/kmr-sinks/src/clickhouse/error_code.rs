//! ClickHouse's error codes, sorted by what can be done about them.

use crate::clickhouse::batch::exception::{Origin, origin};

/// What an error of the server means for the batch that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorClass {
    /// A row of the batch is at fault.
    Data,
    /// The table is no longer what it was when the consumer started.
    Schema,
    /// It may pass: overload, memory, network, a replica that is away.
    Transient,
    /// Parts come in faster than the server merges them. It passes if intake slows down.
    TooManyParts,
    /// The rows of one insert fall into more table partitions than it may touch. Fewer rows at once may do.
    TooManyPartitions,
    /// A materialized view behind the table cannot take a row. The rows are in the table itself, and every further attempt
    /// would put them there again.
    View,
    /// It will not pass without an operator: credentials, permissions, a missing table.
    Fatal,
}

impl ErrorClass {
    /// Whether the same batch may be accepted later on.
    pub fn is_retryable(self) -> bool {
        matches!(self, ErrorClass::Transient | ErrorClass::TooManyParts)
    }
}

/// The class of code `code`, sent with HTTP status `status` and this message, whole.
///
/// The numbers were compared with the names that a server of version 26.7 gives them (`errorCodeToName`). A code that is
/// in no list is judged by its status: ClickHouse sends 4xx for what the client did wrong.
pub(crate) fn classify(code: u32, status: u16, message: &str) -> ErrorClass {
    let class = listed(code, message).unwrap_or({
        let clients_fault = (400..500).contains(&status) && status != 408 && status != 429;
        if clients_fault { ErrorClass::Fatal } else { ErrorClass::Transient }
    });
    match (class, origin(code, message)) {
        // Tried again, the rows would be once more in the table itself; taken apart, too.
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
        // One code, two errors. The other one: a block touches more table partitions than it may, now and for ever.
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

/// What to do about it, in a few words.
pub(crate) fn remedy(code: u32, class: ErrorClass) -> &'static str {
    match (code, class) {
        (60, _) => "create the table, or correct its name or .database()",
        (81, _) => "create the database, or correct .database()",
        (115, _) => "remove the .setting() that this server does not know, or update the server",
        (164, _) => "the user is read-only: use one that may insert",
        (192..=195 | 516, _) => "check .user() and .password(), or .bearer_token()",
        (497, _) => "grant INSERT and SHOW COLUMNS on the table to the user",
        (285 | 286 | 319, ErrorClass::Transient) => {
            "not enough replicas have the rows (.insert_quorum()): it is tried again, start the replicas"
        }
        (242, ErrorClass::Transient) => {
            "the table takes no rows for now: it is tried again, look whether its Keeper answers"
        }
        (_, ErrorClass::TooManyPartitions) => {
            "the batch falls into too many table partitions: lower .max_records(), use a coarser PARTITION BY, or raise the limit with \
             .setting(\"max_partitions_per_insert_block\", …), as a block has to that is planned for exactly-once delivery"
        }
        (_, ErrorClass::Data) => "correct the mapping or the table",
        (_, ErrorClass::Schema) => "the table changed since the start: check its columns and start again",
        (_, ErrorClass::View) => {
            "the rows are in the table itself: correct the view, or detach it, before the consumer is started again"
        }
        (_, ErrorClass::TooManyParts) => {
            "raise .max_records() or .max_age() so that fewer, larger parts are written"
        }
        (_, ErrorClass::Transient) => "it is tried again",
        (_, ErrorClass::Fatal) => "see the server's message and log",
    }
}

/// Finds `Code: 60. DB::Exception: text` in a body, at its start or behind other output, and returns code and text.
pub(crate) fn find_exception(text: &str) -> Option<(u32, &str)> {
    text.match_indices("Code: ").find_map(|(at, mark)| {
        let rest = &text[at + mark.len()..];
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
    fn listed_codes_have_their_class_whatever_the_status() {
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
        // What passes, passes in a view, too.
        assert_eq!(classify(241, 500, "Memory: while pushing to view kmr.v."), ErrorClass::Transient);
    }

    #[test]
    fn unlisted_codes_follow_the_status() {
        assert_eq!(classify(62, 400, ""), ErrorClass::Fatal);
        assert_eq!(classify(4711, 500, ""), ErrorClass::Transient);
        assert_eq!(classify(4711, 429, ""), ErrorClass::Transient);
    }

    #[test]
    fn exceptions_are_found_behind_other_output() {
        assert_eq!(find_exception("1\t2\nCode: 209. DB::Exception: Timeout"), Some((209, "Timeout")));
        assert_eq!(find_exception("Code: 60. DB::NetException: x").map(|(code, _)| code), Some(60));
        assert_eq!(find_exception("Zip Code: 1010 Vienna"), None);
        assert_eq!(find_exception(""), None);
    }
}
