//! Limits on rejected rows. Above them the mapping is at fault, not the rows.

use crate::clickhouse::error::ClickHouseError;

/// Rejected rows from which a ratio is meaningful.
const MIN_REJECTED: u64 = 100;
/// Number of recent rows that the ratio covers, approximately.
const WINDOW: u64 = 100_000;

/// The limits of one writer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RejectionLimits {
    /// Rejected rows in one batch.
    pub(crate) rows: usize,
    /// Ratio of rejected rows in the last [`WINDOW`].
    pub(crate) ratio: f64,
}

impl Default for RejectionLimits {
    fn default() -> Self {
        Self { rows: 1_000, ratio: 0.1 }
    }
}

impl RejectionLimits {
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let is_ratio = (0.0..=1.0).contains(&self.ratio);
        (!is_ratio).then_some("the ratio of .max_rejected_ratio() must be between 0 and 1")
    }
}

/// Rows of the completed batches of one writer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    rows: u64,
    rejected: u64,
}

impl Tally {
    /// Counts a completed batch.
    pub(crate) fn add(&mut self, rows: u64, rejected: u64) {
        self.rows += rows;
        self.rejected += rejected;
        while self.rows > WINDOW {
            self.rows /= 2;
            self.rejected /= 2;
        }
    }

    /// The exceeded limit, for a batch of `rows` rows of which `rejected` are rejected so far.
    pub(crate) fn exceeds(&self, limits: RejectionLimits, rows: u64, rejected: u64) -> Option<String> {
        if rejected > limits.rows as u64 {
            return Some(format!(
                "{rejected} of {rows} rows of one batch, and {} are allowed (.max_rejected())",
                limits.rows
            ));
        }
        let (all_rows, all_rejected) = (self.rows + rows, self.rejected + rejected);
        let too_many = all_rejected >= MIN_REJECTED && all_rejected as f64 > limits.ratio * all_rows as f64;
        too_many.then(|| {
            format!(
                "{all_rejected} of the last {all_rows} rows, and a ratio of {} is allowed (.max_rejected_ratio())",
                limits.ratio
            )
        })
    }
}

/// The error for an exceeded limit.
pub(crate) fn too_many(table: &str, what: String, last: ClickHouseError) -> ClickHouseError {
    ClickHouseError::TooManyRejected { table: table.to_owned(), what, source: Box::new(last) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_batch_has_a_limit_of_its_own() {
        let limits = RejectionLimits { rows: 5, ratio: 1.0 };
        assert_eq!(Tally::default().exceeds(limits, 1000, 5), None);
        let text = Tally::default().exceeds(limits, 1000, 6).unwrap();
        assert!(text.contains("6 of 1000 rows of one batch"), "{text}");
    }

    #[test]
    fn the_ratio_covers_batches_of_any_size_from_the_minimum_on() {
        let limits = RejectionLimits::default();
        let mut tally = Tally::default();
        let mut ended = 0;
        // One row a batch, and all are bad.
        while tally.exceeds(limits, 1, 1).is_none() {
            tally.add(1, 1);
            ended += 1;
        }
        assert_eq!(ended + 1, MIN_REJECTED);
        // The window forgets a long run of good rows.
        let mut tally = Tally::default();
        for _ in 0..1000 {
            tally.add(32_768, 0);
        }
        let mut ended = 0;
        while tally.exceeds(limits, 100, 100).is_none() {
            tally.add(100, 100);
            ended += 1;
            assert!(ended < 1000, "the limit was never reached");
        }
    }

    #[test]
    fn a_number_that_is_no_ratio_is_rejected() {
        assert!(RejectionLimits { rows: 1, ratio: 1.5 }.problem().is_some());
        assert!(RejectionLimits { rows: 1, ratio: f64::NAN }.problem().is_some());
        assert!(RejectionLimits::default().problem().is_none());
    }
}
