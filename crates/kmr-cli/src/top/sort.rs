//! The order of consumers and of partitions.

use std::cmp::Ordering;

use super::consumer::Consumer;
use super::history::History;
use super::state::severity;
use super::status::{Partition, Status};

/// By what rows are sorted, the highest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// The worst first, then by name: rows keep their places as long as all is well.
    #[default]
    Worst,
    Lag,
    Age,
    Rate,
    Name,
}

impl Sort {
    const ALL: [Self; 5] = [Self::Worst, Self::Lag, Self::Age, Self::Rate, Self::Name];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Worst => "worst",
            Self::Lag => "lag",
            Self::Age => "age",
            Self::Rate => "rate",
            Self::Name => "name",
        }
    }

    pub(super) fn next(self, steps: usize) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL[(at + steps) % Self::ALL.len()]
    }

    pub(super) fn previous(self) -> Self {
        self.next(Self::ALL.len() - 1)
    }
}

/// The partitions of a status in order.
pub(super) fn partitions<'s>(status: &'s Status, history: &History, sort: Sort) -> Vec<&'s Partition> {
    let mut all: Vec<_> = status.partitions.iter().map(|p| (history.partition_rate(&p.name), p)).collect();
    all.sort_by(|(left_rate, left), (right_rate, right)| {
        let order = match sort {
            Sort::Worst => severity(right).cmp(&severity(left)).then_with(|| match severity(left) {
                0 => Ordering::Equal,
                _ => highest_first(step(left.age_seconds), step(right.age_seconds)),
            }),
            Sort::Lag => right.lag_records.cmp(&left.lag_records),
            Sort::Age => highest_first(left.age_seconds, right.age_seconds),
            Sort::Rate => highest_first(*left_rate, *right_rate),
            Sort::Name => Ordering::Equal,
        };
        order.then_with(|| left.name.cmp(&right.name))
    });
    all.into_iter().map(|(_, partition)| partition).collect()
}

/// The places of the consumers in order.
pub(super) fn consumers(consumers: &[Consumer], sort: Sort) -> Vec<usize> {
    let mut places: Vec<usize> = (0..consumers.len()).collect();
    places.sort_by(|left, right| {
        let (left, right) = (&consumers[*left], &consumers[*right]);
        let (a, b) = (left.status(), right.status());
        match sort {
            Sort::Worst => right.kind().cmp(&left.kind()),
            Sort::Lag => b.and_then(|b| b.lag_records).cmp(&a.and_then(|a| a.lag_records)),
            Sort::Age => highest_first(a.and_then(Status::age_seconds), b.and_then(Status::age_seconds)),
            Sort::Rate => {
                highest_first(left.history.records_per_second(), right.history.records_per_second())
            }
            Sort::Name => name(left).cmp(&name(right)),
        }
    });
    places
}

fn name(consumer: &Consumer) -> (&str, &str) {
    (consumer.status().map_or("", |status| status.group.as_str()), consumer.address.text())
}

fn highest_first(left: Option<f64>, right: Option<f64>) -> Ordering {
    right.unwrap_or(-1.0).total_cmp(&left.unwrap_or(-1.0))
}

/// Steps of ages, so that rows of about the same age keep their places.
fn step(age: Option<f64>) -> Option<f64> {
    age.map(|age| (2.0 * (1.0 + age.max(0.0)).log2()).floor())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Status {
        let partition = |n: u64, lag: u64, age: f64, late: bool| json!({ "topic": "t", "partition": n, "lag_records": lag, "age_seconds": age, "late": late });
        let all = [partition(0, 5, 1.0, false), partition(1, 900, 2.0, false), partition(2, 7, 40.0, true)];
        let value = json!({ "partitions": all, "state": "running", "healthy": true, "responsive": true });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn partitions_are_in_order() {
        let status = status();
        let numbers = |sort| -> Vec<i64> {
            partitions(&status, &History::default(), sort).iter().map(|p| p.name.partition).collect()
        };
        assert_eq!(numbers(Sort::Worst), [2, 0, 1]);
        assert_eq!(numbers(Sort::Lag), [1, 2, 0]);
        assert_eq!(numbers(Sort::Age), [2, 1, 0]);
        assert_eq!(numbers(Sort::Rate), [0, 1, 2], "no rate is known");
        assert_eq!(numbers(Sort::Name), [0, 1, 2]);
    }

    #[test]
    fn every_order_can_be_reached_both_ways() {
        let mut sort = Sort::default();
        for _ in Sort::ALL {
            assert_eq!(sort.next(1).previous(), sort);
            sort = sort.next(1);
        }
        assert_eq!(sort, Sort::Worst);
    }
}
