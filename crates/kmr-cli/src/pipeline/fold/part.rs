//! The parts of a folded row, and how later ones are merged into them.

use super::number::Decimal;

/// The folded value of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Count(u64),
    Sum(Total),
    Min(Option<Decimal>),
    Max(Option<Decimal>),
    /// A value as JSON.
    First(Option<Box<str>>),
    /// A value as JSON.
    Last(Option<Box<str>>),
}

/// A sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Total {
    /// Of no values.
    Empty,
    Of(Decimal),
    /// It has more digits than can be added up exactly.
    Overflow,
}

impl Part {
    /// Merges the part of a later row into this one. Both are of one column, and so of one kind.
    pub(super) fn merge(&mut self, later: Self) {
        match (self, later) {
            (Self::Count(count), Self::Count(later)) => *count += later,
            (Self::Sum(total), Self::Sum(later)) => total.add(later),
            (Self::Min(least), Self::Min(later)) => keep(least, later, |later, least| later < least),
            (Self::Max(greatest), Self::Max(later)) => keep(greatest, later, |later, found| later > found),
            (Self::First(first), Self::First(later)) => keep(first, later, |_, _| false),
            (Self::Last(last), Self::Last(later)) => keep(last, later, |_, _| true),
            _ => {}
        }
    }

    /// Bytes of memory that it owns.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::First(text) | Self::Last(text) => text.as_deref().map_or(0, str::len),
            Self::Count(_) | Self::Sum(_) | Self::Min(_) | Self::Max(_) => 0,
        }
    }

    /// The value as JSON. `None`: no record had one.
    ///
    /// # Errors
    /// A sum cannot be exact.
    pub(super) fn json(&self) -> Result<Option<String>, &'static str> {
        match self {
            Self::Count(count) => Ok(Some(count.to_string())),
            Self::Sum(Total::Overflow) => {
                Err("the sum of these records has more than 38 digits, which cannot be folded exactly")
            }
            Self::Sum(Total::Empty) => Ok(None),
            Self::Sum(Total::Of(sum)) => Ok(Some(sum.to_string())),
            Self::Min(number) | Self::Max(number) => Ok(number.map(|number| number.to_string())),
            Self::First(text) | Self::Last(text) => Ok(text.as_deref().map(str::to_owned)),
        }
    }
}

/// Keeps the later value if there is no earlier one, or if it `replaces` that.
fn keep<T>(earlier: &mut Option<T>, later: Option<T>, replaces: impl Fn(&T, &T) -> bool) {
    let is_kept = match (&*earlier, &later) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(earlier), Some(later)) => !replaces(later, earlier),
    };
    if !is_kept {
        *earlier = later;
    }
}

impl Total {
    fn add(&mut self, later: Self) {
        *self = match (*self, later) {
            (Self::Overflow, _) | (_, Self::Overflow) => Self::Overflow,
            (Self::Empty, other) | (other, Self::Empty) => other,
            (Self::Of(sum), Self::Of(later)) => sum.checked_add(later).map_or(Self::Overflow, Self::Of),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(parts: impl IntoIterator<Item = Part>) -> Result<Option<String>, &'static str> {
        let merge = |mut part: Part, later| {
            part.merge(later);
            part
        };
        parts.into_iter().reduce(merge).unwrap().json()
    }

    fn number(text: &str) -> Option<Decimal> {
        (!text.is_empty()).then(|| Decimal::parse(text).unwrap())
    }

    fn sum(text: &str) -> Part {
        Part::Sum(number(text).map_or(Total::Empty, Total::Of))
    }

    #[test]
    fn parts_merge_as_their_names_say_and_missing_values_change_nothing() {
        let of = |json: &str| Ok(Some(json.to_owned()));
        let numbers = ["", "2", "1.5", "", "30"];
        assert_eq!(merged(numbers.map(|_| Part::Count(1))), of("5"));
        assert_eq!(merged(numbers.map(sum)), of("33.5"));
        assert_eq!(merged(numbers.map(|text| Part::Min(number(text)))), of("1.5"));
        assert_eq!(merged(numbers.map(|text| Part::Max(number(text)))), of("30"));
        let texts = [None, Some("\"a\""), Some("\"b\""), None].map(|text| text.map(Box::from));
        assert_eq!(merged(texts.clone().map(Part::First)), of("\"a\""));
        assert_eq!(merged(texts.map(Part::Last)), of("\"b\""));
        for nothing in [sum(""), Part::Min(None), Part::Last(None)] {
            assert_eq!(merged([nothing.clone(), nothing]), Ok(None));
        }
    }

    #[test]
    fn a_sum_that_cannot_be_exact_is_an_error_whatever_follows() {
        let long = "170141183460469231731687303715884105727";
        assert_eq!(merged([sum(long), sum("-1")]).map(|sum| sum.is_some()), Ok(true));
        assert!(merged([sum(long), sum("1"), sum("-5"), sum("")]).unwrap_err().contains("38 digits"));
    }
}
