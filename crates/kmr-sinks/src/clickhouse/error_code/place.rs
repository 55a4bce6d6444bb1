//! Reads the text of an exception: the place and the stage of the insert, the row and the column.
//!
//! The texts are those of a server of version 26.7. The server appends the places to the message,
//! from the inner to the outer one. So they are read from the end: a value of a row, which the
//! message can repeat, is never taken for a place. An unknown text only costs requests or a stop: a
//! named row is inserted alone before it counts as rejected.

/// A stage of an insert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The header of the body does not fit the table. Nothing was read.
    Header,
    /// The body is read, and the text names no row. Nothing was written.
    Reading,
    /// The values of a row could not be read. Nothing was written.
    Row,
    /// A function or a conversion of a row's values: in a computed column, a constraint, a key, an
    /// index. The last two are computed for each table partition, after the one before is stored.
    Function,
    /// A constraint. The server checks a whole block before it writes.
    Constraint,
    /// Another stage, or an unknown text.
    #[default]
    Other,
}

/// Where the server raised an exception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) stage: Stage,
    /// In a dependent view. The rows are stored in the table itself.
    pub(crate) in_view: bool,
    /// In a shard of a Distributed table. Other shards may have stored their rows.
    pub(crate) in_shard: bool,
    /// The connection to a shard failed.
    pub(crate) lost_shard: bool,
}

/// ClickHouse's code for a row that violates a constraint.
const VIOLATED_CONSTRAINT: u32 = 469;

const VIEW: &str = ": while pushing to view ";
const SHARDS: &str = ": Insertion status:";
const CONNECTION: &str = ": while receiving packet from ";
const PROCESSOR: &str = ": While executing ";
const FUNCTION: &str = ": while executing 'FUNCTION ";
const FUNCTION_ON: &str = ": while executing function ";
const CONVERSION: &str = ": while converting source column ";
const VALUE: &str = ": (while reading the value of key ";

impl Place {
    pub(crate) fn of(code: u32, message: &str) -> Self {
        let mut place = Self::default();
        let mut rest = without_name(message);
        // The stage is the innermost place. Before it is the message, with values of a row.
        while matches!(place.stage, Stage::Other | Stage::Reading)
            && let Some(before) = place.read_last(rest)
        {
            rest = before.trim_end();
        }
        place.in_shard |= message.starts_with("Received from ");
        if code == VIOLATED_CONSTRAINT {
            place.stage = Stage::Constraint;
        }
        place
    }

    /// Reads the last place of a text, and returns the text before it.
    fn read_last<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        // First what follows the values of a row directly.
        if let Some(before) = last(text, ": (at row ", is_row_number) {
            self.stage = Stage::Row;
            return Some(before);
        }
        if let Some(before) = text.strip_suffix(": (while reading header)") {
            self.stage = Stage::Header;
            return Some(before);
        }
        if let Some(before) = last(text, VIEW, is_name) {
            self.in_view = true;
            return Some(before);
        }
        let is_status = |lines: &str| lines.lines().all(|line| line.is_empty() || line.starts_with("Wrote "));
        if let Some(before) = last(text, SHARDS, is_status) {
            self.in_shard = true;
            return Some(before);
        }
        if let Some(before) = last(text, CONNECTION, is_name) {
            (self.in_shard, self.lost_shard) = (true, true);
            return Some(before);
        }
        if let Some(before) = last(text, PROCESSOR, |name| name.chars().all(char::is_alphanumeric)) {
            if text.ends_with("InputFormat") && self.stage == Stage::Other {
                self.stage = Stage::Reading;
            }
            return Some(before);
        }
        self.read_function(text)
    }

    /// Reads a function at the end of a text, and returns the text before it.
    fn read_function<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        if let Some(before) = last(text, VALUE, |name| name.ends_with(')') && !name.contains('\n')) {
            return Some(before);
        }
        for function in [FUNCTION, FUNCTION_ON, CONVERSION] {
            if let Some((before, _)) = text.rsplit_once(function) {
                self.stage = Stage::Function;
                return Some(before);
            }
        }
        None
    }
}

/// The text before the last `words`, if `is_end` holds for the text after them.
fn last<'t>(text: &'t str, words: &str, is_end: impl Fn(&str) -> bool) -> Option<&'t str> {
    let (before, after) = text.rsplit_once(words)?;
    is_end(after.trim_end()).then_some(before)
}

/// A name has no quote; the text of a value ends with one.
fn is_name(text: &str) -> bool {
    !text.contains(['\'', '\n'])
}

fn is_row_number(text: &str) -> bool {
    let number = text.strip_suffix(')').unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && number != "0"
}

/// The text without `. (NAME) (version 26.7.2.1)` at its end.
fn without_name(message: &str) -> &str {
    let text = message.trim_end();
    let text = text.rsplit_once(" (version ").map_or(text, |(before, _)| before);
    let is_error_name =
        |name: &str| name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let text = match text.rsplit_once(". (") {
        Some((before, name)) if name.strip_suffix(')').is_some_and(is_error_name) => before,
        _ => text.strip_suffix('.').unwrap_or(text),
    };
    text.trim_end()
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
pub(crate) mod tests {
    use super::*;

    const CONSTRAINT: &str = "Constraint `small` for table kmr.c (57c81db6-923d-46c0-84ec-21b61a77413b) is violated at row 3. \
        Expression: (id < 100). Column values: id = 500. (VIOLATED_CONSTRAINT) (version 26.7.2.1)";
    const JSON: &str = "Cannot parse JSON object here: {\"a\":: (at row 2)\n: While executing BinaryRowInputFormat. (INCORRECT_DATA) \
        (version 26.7.2.1)";

    fn place(stage: Stage) -> Place {
        Place { stage, ..Place::default() }
    }

    /// What the server appends to a message, for each place.
    pub(crate) const PLACES: [(&str, &str, Place); 13] = {
        const fn place(stage: Stage, in_view: bool, in_shard: bool, lost_shard: bool) -> Place {
            Place { stage, in_view, in_shard, lost_shard }
        }
        [
            (
                "the header of the body",
                ": (while reading header): While executing BinaryRowInputFormat",
                place(Stage::Header, false, false, false),
            ),
            (
                "a row, while it is read",
                ": (at row 2)\n: While executing BinaryRowInputFormat",
                place(Stage::Row, false, false, false),
            ),
            (
                "the body, while it is read",
                ": (while reading the value of key s): While executing JSONEachRowRowInputFormat",
                place(Stage::Reading, false, false, false),
            ),
            (
                "a computed column, constraint, key or index",
                ": while executing 'FUNCTION intDiv(1_UInt8 :: 1, id :: 5) -> intDiv(1_UInt8, id) Int8 : 4'",
                place(Stage::Function, false, false, false),
            ),
            (
                "the same, in another wording",
                ": while executing function intDiv on arguments 1_UInt8 UInt8(size = 2)",
                place(Stage::Function, false, false, false),
            ),
            (
                "a conversion to the column's type",
                ": while converting source column e to destination column e: while executing 'FUNCTION _CAST(e :: 1, Enum8('a' \
                 = 1) :: 3) -> _CAST(e, Enum8('a' = 1)) Enum8('a' = 1) : 2'",
                place(Stage::Function, false, false, false),
            ),
            (
                "a view",
                ": while executing 'FUNCTION throwIf(equals(__table1.id, 7_UInt8) :: 0)': while pushing to view k.v",
                place(Stage::Function, true, false, false),
            ),
            (
                "a view of a view",
                ": while executing 'FUNCTION throwIf(id :: 0)': while pushing to view k.w: while pushing to view k.v",
                place(Stage::Function, true, false, false),
            ),
            (
                "a shard",
                ": while executing 'FUNCTION throwIf(id :: 0)': Insertion status:\nWrote 1 blocks and 20 rows on shard 0 \
                 replica 0, 127.0.0.1:9000 (average 1 ms per block)\n",
                place(Stage::Function, false, true, false),
            ),
            (
                "a view of a shard",
                ": while executing 'FUNCTION throwIf(id :: 0)': while pushing to view k.v: Insertion status:\nWrote 1 blocks and \
                 20 rows on shard 0 replica 0, 127.0.0.1:9000 (average 1 ms per block)\n",
                place(Stage::Function, true, true, false),
            ),
            (
                "a shard of a view",
                ": while executing 'FUNCTION throwIf(id :: 0)': Insertion status:\nWrote 1 blocks and 20 rows on shard 0 \
                 replica 0, 127.0.0.1:9000 (average 1 ms per block)\n: while pushing to view k.v",
                place(Stage::Function, true, true, false),
            ),
            (
                "the connection to a shard",
                ": while receiving packet from 172.17.0.6:9000, local address: 172.17.0.2:34414: Insertion status:\nWrote 1 blocks \
                 and 20 rows on shard 0 replica 0, 172.17.0.6:9000 (average 3004 ms per block)\n",
                place(Stage::Other, false, true, true),
            ),
            ("another place", "", place(Stage::Other, false, false, false)),
        ]
    };

    #[test]
    fn every_place_is_found_with_every_end_of_a_message() {
        for (what, suffix, expected) in PLACES {
            for end in
                [". (NAME_OF_CODE) (version 26.7.2.1)", ". () (version 26.7.2.1 (official build))", "."]
            {
                let message = format!("Value 'x': y is bad{suffix}{end}");
                assert_eq!(Place::of(395, &message), expected, "{what}: {message}");
            }
        }
    }

    #[test]
    fn the_error_of_a_shard_is_found_without_a_status() {
        let text = "Received from 172.17.0.6:9000. DB::Exception: Value passed to 'throwIf' function is non-zero: while executing \
            'FUNCTION throwIf(equals(id, 7_UInt8) :: 4) -> throwIf(equals(id, 7_UInt8)) UInt8 : 3'. \
            (FUNCTION_THROW_IF_VALUE_IS_NON_ZERO) (version 26.7.2.1)";
        let expected = Place { stage: Stage::Function, in_shard: true, ..Place::default() };
        assert_eq!(Place::of(395, text), expected);
    }

    #[test]
    fn a_value_that_holds_the_words_of_a_place_does_not_change_it() {
        for words in [VIEW, SHARDS, CONNECTION, PROCESSOR, FUNCTION, ": (at row 9)"] {
            let text = CONSTRAINT.replace("id = 500", &format!("s = 'a{words}k.v'"));
            assert_eq!(Place::of(469, &text), place(Stage::Constraint), "{text}");
            let text = JSON.replace("{\"a\":", &format!("{{{words}k.v (while reading header)"));
            assert_eq!(Place::of(117, &text), place(Stage::Row), "{text}");
        }
        let text = JSON.replace("{\"a\":", "{(at row 9) (while reading header)");
        assert_eq!(row(&text), Some(1));
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
