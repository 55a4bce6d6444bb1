//! What could make a row fit that does not fit the table now.

/// A change of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A name that is added to an `Enum`.
    EnumName,
    /// A column that is added for a field.
    Column,
}
