//! A number that carries its scale, so that the encoder can compare it with the column's.

use serde::ser::{Serialize, Serializer};

use super::EncodeError;
use crate::clickhouse::table::types::Type;

/// Names of the newtype by scale. serde passes only static names.
#[rustfmt::skip]
const NAMES: [&str; 77] = [
    "kmr::Scaled/0", "kmr::Scaled/1", "kmr::Scaled/2", "kmr::Scaled/3", "kmr::Scaled/4",
    "kmr::Scaled/5", "kmr::Scaled/6", "kmr::Scaled/7", "kmr::Scaled/8", "kmr::Scaled/9",
    "kmr::Scaled/10", "kmr::Scaled/11", "kmr::Scaled/12", "kmr::Scaled/13", "kmr::Scaled/14",
    "kmr::Scaled/15", "kmr::Scaled/16", "kmr::Scaled/17", "kmr::Scaled/18", "kmr::Scaled/19",
    "kmr::Scaled/20", "kmr::Scaled/21", "kmr::Scaled/22", "kmr::Scaled/23", "kmr::Scaled/24",
    "kmr::Scaled/25", "kmr::Scaled/26", "kmr::Scaled/27", "kmr::Scaled/28", "kmr::Scaled/29",
    "kmr::Scaled/30", "kmr::Scaled/31", "kmr::Scaled/32", "kmr::Scaled/33", "kmr::Scaled/34",
    "kmr::Scaled/35", "kmr::Scaled/36", "kmr::Scaled/37", "kmr::Scaled/38", "kmr::Scaled/39",
    "kmr::Scaled/40", "kmr::Scaled/41", "kmr::Scaled/42", "kmr::Scaled/43", "kmr::Scaled/44",
    "kmr::Scaled/45", "kmr::Scaled/46", "kmr::Scaled/47", "kmr::Scaled/48", "kmr::Scaled/49",
    "kmr::Scaled/50", "kmr::Scaled/51", "kmr::Scaled/52", "kmr::Scaled/53", "kmr::Scaled/54",
    "kmr::Scaled/55", "kmr::Scaled/56", "kmr::Scaled/57", "kmr::Scaled/58", "kmr::Scaled/59",
    "kmr::Scaled/60", "kmr::Scaled/61", "kmr::Scaled/62", "kmr::Scaled/63", "kmr::Scaled/64",
    "kmr::Scaled/65", "kmr::Scaled/66", "kmr::Scaled/67", "kmr::Scaled/68", "kmr::Scaled/69",
    "kmr::Scaled/70", "kmr::Scaled/71", "kmr::Scaled/72", "kmr::Scaled/73", "kmr::Scaled/74",
    "kmr::Scaled/75", "kmr::Scaled/76",
];
const PREFIX: &str = "kmr::Scaled/";

/// A number with `SCALE` digits after the decimal point: the ticks of a `DateTime64(SCALE)` or
/// `Time64(SCALE)`, or a `Decimal(P, SCALE)` as an integer.
///
/// A plain `i64` does not show its unit. Milliseconds in a column of microseconds are a date in
/// 1970, and no check can find that. With this type, a column of another scale stops the consumer
/// at the first row, with both scales. Seconds (`SCALE` 0) also fit `DateTime` and `Time`.
///
/// In other formats than the writer's it serialises as the number alone.
///
/// ```
/// use kmr_sinks::clickhouse::{Row, Scaled};
/// use serde::Serialize;
///
/// #[derive(Row, Serialize)]
/// #[clickhouse(crate = "kmr_sinks::clickhouse")]
/// struct Payment {
///     /// A `DateTime64(3)`.
///     at: Scaled<i64, 3>,
///     /// A `Decimal(18, 2)`.
///     amount: Scaled<i64, 2>,
/// }
/// let payment = Payment { at: Scaled(1_700_000_000_000), amount: Scaled(1999) };
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scaled<T, const SCALE: usize>(
    /// The number, without the decimal point.
    pub T,
);

impl<T: Serialize, const SCALE: usize> Serialize for Scaled<T, SCALE> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(const { NAMES[SCALE] }, &self.0)
    }
}

/// The scale, if `name` is that of a [`Scaled`].
#[inline]
pub(super) fn scale_of(name: &'static str) -> Option<u8> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// Compares the scale of a value with that of its column.
#[inline]
pub(super) fn check(scale: u8, ty: &Type) -> Result<(), EncodeError> {
    match ty {
        Type::Nullable(inner) => check(scale, inner),
        ty if ty.scale() == Some(scale) => Ok(()),
        ty => Err(other_scale(scale, ty)),
    }
}

#[cold]
fn other_scale(scale: u8, ty: &Type) -> EncodeError {
    EncodeError::every_row(match ty.scale() {
        Some(columns) => {
            format!("the row holds a number of {scale} digits after the point, and the column has {columns}")
        }
        None => format!("the row holds a scaled number where the column accepts {}", ty.with_rust_types()),
    })
}
