//! Reads the text of an exception: the stage of the insert, the row and the column.
//!
//! The texts are those of a server of version 26.7. An unknown text only costs requests. A named
//! row is inserted alone before it counts as rejected, and an ambiguous stage counts as the more
//! cautious case.

/// A stage of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The header of the body does not fit the table. Nothing was read.
    Header,
    /// The values of a row could not be read. Nothing was written.
    Parse,
    /// A constraint of the table itself. The server checks a whole block before it writes.
    Constraint,
    /// A dependent view failed. The rows are stored in the table itself.
    View,
    /// Another stage, or an unknown text.
    Unknown,
}

/// The stage that the exception comes from.
pub(crate) fn origin(code: u32, message: &str) -> Origin {
    if comes_from_view(message) {
        Origin::View
    } else if code == 469 {
        Origin::Constraint
    } else if !message.contains("RowInputFormat") && !message.contains("(at row ") {
        Origin::Unknown
    } else if row(message).is_some() {
        Origin::Parse
    } else if message.contains("(while reading header)") {
        Origin::Header
    } else {
        Origin::Unknown
    }
}

/// `…: while pushing to view db.v. (NAME) (version …)`: after every text that can repeat values of
/// a row.
fn comes_from_view(message: &str) -> bool {
    message.rsplit_once("while pushing to view ").is_some_and(|(_, after)| !after.contains('\''))
}

/// The named row, counted from 0: `(at row 7)`, or `is violated at row 7`.
pub(crate) fn row(message: &str) -> Option<usize> {
    // The first text follows the value, the second one precedes it.
    let parse = message.rsplit_once("(at row ").map(|(_, after)| after);
    let number = parse.or_else(|| message.split_once(" is violated at row ").map(|(_, after)| after))?;
    let end = number.find(|c: char| !c.is_ascii_digit())?;
    number[..end].parse::<usize>().ok()?.checked_sub(1)
}

/// The column of a violated constraint: `Column values: id = 500`.
pub(crate) fn column(message: &str) -> Option<&str> {
    let (_, values) = message.split_once("Column values: ")?;
    let (name, _) = values.split_once(" = ")?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSTRAINT: &str = "Constraint `small` for table kmr.c (57c81db6-923d-46c0-84ec-21b61a77413b) is violated at row 3. \
        Expression: (id < 100). Column values: id = 500. (VIOLATED_CONSTRAINT) (version 26.7.2.1)";
    const JSON: &str = "Cannot parse JSON object here: {\"a\":: (at row 2)\n: While executing BinaryRowInputFormat. (INCORRECT_DATA) \
        (version 26.7.2.1)";
    const HEADER: &str = "Type of 'd' must be Date32, not UInt32: (while reading header): While executing BinaryRowInputFormat. \
        (INCORRECT_DATA) (version 26.7.2.1)";
    const VIEW: &str = "Constraint `tsmall` for table kmr.tgt is violated at row 51. Expression: (y < 50). Column values: y = 50: \
        while pushing to view kmr.v2. (VIOLATED_CONSTRAINT) (version 26.7.2.1)";

    #[test]
    fn the_stage_follows_from_the_text() {
        for (code, text, expected) in [
            (469, CONSTRAINT, Origin::Constraint),
            (117, JSON, Origin::Parse),
            (117, HEADER, Origin::Header),
            (469, VIEW, Origin::View),
            (395, "throwIf: while pushing to view kmr.v. (NON_ZERO) (version 26.7.2.1)", Origin::View),
            (153, "Division by zero: while executing 'FUNCTION intDiv(100_UInt8 :: 5)'", Origin::Unknown),
            (241, "Memory limit exceeded", Origin::Unknown),
        ] {
            assert_eq!(origin(code, text), expected, "{text}");
        }
    }

    #[test]
    fn a_value_that_mentions_a_view_does_not_change_the_stage() {
        let text = CONSTRAINT.replace("id = 500", "s = 'while pushing to view kmr.v'");
        assert_eq!(origin(469, &text), Origin::Constraint);
        let text = JSON.replace("{\"a\":", "{(at row 9) (while reading header)");
        assert_eq!((origin(117, &text), row(&text)), (Origin::Parse, Some(1)));
    }

    #[test]
    fn rows_and_columns_are_found() {
        assert_eq!((row(CONSTRAINT), column(CONSTRAINT)), (Some(2), Some("id")));
        assert_eq!((row(JSON), column(JSON)), (Some(1), None));
        for text in ["(at row x)", "(at row 0)", "(at row 7", "nothing"] {
            assert_eq!(row(text), None, "{text}");
        }
    }
}
