//! Ready parts of folded rows, and buckets of time for their keys.

use std::ops::AddAssign;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// A part of a folded row that merges with the same part of a later row.
///
/// It has to be associative, and must not depend on anything but its arguments: see
/// [`Fold`](super::Fold).
pub trait Merge {
    /// Merges a later part into this one.
    fn merge(&mut self, later: Self);
}

/// `None` merges with anything: for values that some records lack.
impl<M: Merge> Merge for Option<M> {
    fn merge(&mut self, later: Self) {
        match (self.as_mut(), later) {
            (Some(part), Some(later)) => part.merge(later),
            (None, later) => *self = later,
            (Some(_), None) => {}
        }
    }
}

/// The number of values. Serialises as a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count(pub u64);

impl Count {
    /// The count of one value.
    pub const ONE: Self = Self(1);
}

impl Merge for Count {
    fn merge(&mut self, later: Self) {
        self.0 += later.0;
    }
}

/// The sum of values. Overflow is that of `+=`, so choose a type that is wide enough. Serialises as
/// the sum.
///
/// Sums of `f64` depend on the order of addition in their last digits. kmr adds in the order of
/// offsets, so a rebuilt block has the same sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sum<T>(pub T);

impl<T: AddAssign> Merge for Sum<T> {
    fn merge(&mut self, later: Self) {
        self.0 += later.0;
    }
}

/// The least value. A NaN counts only if there is nothing else. Serialises as the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Min<T>(pub T);

impl<T: PartialOrd> Merge for Min<T> {
    fn merge(&mut self, later: Self) {
        if later.0 < self.0 || is_nan(&self.0) {
            *self = later;
        }
    }
}

/// The greatest value. A NaN counts only if there is nothing else. Serialises as the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Max<T>(pub T);

impl<T: PartialOrd> Merge for Max<T> {
    fn merge(&mut self, later: Self) {
        if later.0 > self.0 || is_nan(&self.0) {
            *self = later;
        }
    }
}

fn is_nan<T: PartialOrd>(value: &T) -> bool {
    value.partial_cmp(value).is_none()
}

/// The value of the first record. Serialises as the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct First<T>(pub T);

impl<T> Merge for First<T> {
    fn merge(&mut self, _: Self) {}
}

/// The value of the last record. Serialises as the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Last<T>(pub T);

impl<T> Merge for Last<T> {
    fn merge(&mut self, later: Self) {
        *self = later;
    }
}

/// Sum and number of values, for their mean.
///
/// It does not serialise, because means of several batches cannot be added up. Write
/// [`sum`](Self::sum) and [`count`](Self::count) to two columns, and divide in the query.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Average {
    /// The sum of the values.
    pub sum: f64,
    /// The number of values.
    pub count: u64,
}

impl Average {
    /// The average of one value.
    pub fn of(value: f64) -> Self {
        Self { sum: value, count: 1 }
    }

    /// The mean. `None` without values.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

impl Merge for Average {
    fn merge(&mut self, later: Self) {
        self.sum += later.sum;
        self.count += later.count;
    }
}

macro_rules! serialises_as_its_value {
    ($($part:ident),*) => {$(
        impl<T: Serialize> Serialize for $part<T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }
    )*};
}

serialises_as_its_value!(Sum, Min, Max, First, Last);

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// The start of the bucket of `width` that holds a time, in milliseconds since the Unix epoch.
/// Buckets follow each other without gaps, and the first one starts at the epoch.
///
/// Use the record's own [timestamp](crate::Record::timestamp_millis), never the clock. A late
/// record belongs to an old bucket, which then has one more row in the table.
///
/// A `width` below 1 ms counts as 1 ms.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use kmr_core::fold::time_bucket;
///
/// assert_eq!(time_bucket(179_999, Duration::from_secs(60)), 120_000);
/// ```
pub fn time_bucket(timestamp_millis: i64, width: Duration) -> i64 {
    let width = i64::try_from(width.as_millis()).unwrap_or(i64::MAX).max(1);
    timestamp_millis.div_euclid(width).saturating_mul(width)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged<M: Merge>(parts: impl IntoIterator<Item = M>) -> M {
        let merge = |mut row: M, later| {
            row.merge(later);
            row
        };
        parts.into_iter().reduce(merge).unwrap()
    }

    #[test]
    fn parts_merge_as_their_names_say() {
        let values = [3_u32, 1, 7, 2];
        assert_eq!(merged(values.map(|_| Count::ONE)), Count(4));
        assert_eq!(merged(values.map(Sum)), Sum(13));
        assert_eq!(merged(values.map(Min)), Min(1));
        assert_eq!(merged(values.map(Max)), Max(7));
        assert_eq!(merged(values.map(First)), First(3));
        assert_eq!(merged(values.map(Last)), Last(2));
        let average = merged(values.map(|value| Average::of(value.into())));
        assert_eq!((average.sum, average.count, average.mean()), (13.0, 4, Some(3.25)));
        assert_eq!(Average::default().mean(), None);
    }

    #[test]
    fn a_value_that_is_missing_changes_nothing() {
        assert_eq!(merged([None, Some(Min(4)), None, Some(Min(3))]), Some(Min(3)));
        assert_eq!(merged([Some(Last(4)), None]), Some(Last(4)));
    }

    #[test]
    fn nan_counts_only_alone_whatever_the_order() {
        let nan = f64::NAN;
        for values in [[1.0, nan, 0.0], [nan, 1.0, 0.0], [1.0, 0.0, nan]] {
            assert_eq!((merged(values.map(Min)), merged(values.map(Max))), (Min(0.0), Max(1.0)));
        }
        assert!(merged([Min(nan), Min(nan)]).0.is_nan());
    }

    #[test]
    fn parts_serialise_as_their_values() {
        let row = (Count(3), Sum(4_u8), Min(-1), Max(2.5), First("a"), Last(Some(1)));
        assert_eq!(serde_json::to_string(&row).unwrap(), r#"[3,4,-1,2.5,"a",1]"#);
    }

    #[test]
    fn a_bucket_starts_at_or_before_its_times() {
        let minute = Duration::from_secs(60);
        for (time, start) in [(0, 0), (59_999, 0), (60_000, 60_000), (-1, -60_000), (i64::MAX, i64::MAX)] {
            let bucket = time_bucket(time, minute);
            assert!(bucket <= time && (start == i64::MAX || bucket == start), "{time}: {bucket}");
        }
        assert_eq!((time_bucket(7, Duration::ZERO), time_bucket(7, Duration::MAX)), (7, 0));
        assert!(time_bucket(i64::MIN, minute) <= i64::MIN + 60_000, "no overflow");
    }
}
