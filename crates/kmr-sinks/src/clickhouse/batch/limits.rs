//! How many rows a server may refuse before that is taken for a mistake of the mapping and not of the rows.

use crate::clickhouse::error::ClickHouseError;

/// Below so many refused rows a share says nothing.
const LEAST_REFUSED: u64 = 100;
/// So many rows are looked back at, more or less.
const WINDOW: u64 = 100_000;

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Refused rows of one batch.
    pub(crate) rows: usize,
    /// Refused rows of the last [`WINDOW`], as a share.
    pub(crate) share: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 1_000, share: 0.1 }
    }
}

impl Limits {
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let sensible = (0.0..=1.0).contains(&self.share);
        (!sensible).then_some("the share of .max_rejected_share() must be between 0 and 1")
    }
}

/// Rows that the batches of one writer ended with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    rows: u64,
    refused: u64,
}

impl Tally {
    /// A batch has ended.
    pub(crate) fn add(&mut self, rows: u64, refused: u64) {
        self.rows += rows;
        self.refused += refused;
        while self.rows > WINDOW {
            self.rows /= 2;
            self.refused /= 2;
        }
    }

    /// Whether a batch of `rows` rows, of which `refused` are refused so far, goes too far.
    pub(crate) fn exceeds(&self, limits: Limits, rows: u64, refused: u64) -> Option<String> {
        if refused > limits.rows as u64 {
            return Some(format!(
                "{refused} of {rows} rows of one batch, and {} are allowed (.max_rejected())",
                limits.rows
            ));
        }
        let (all_rows, all_refused) = (self.rows + rows, self.refused + refused);
        let too_many = all_refused >= LEAST_REFUSED && all_refused as f64 > limits.share * all_rows as f64;
        too_many.then(|| {
            format!(
                "{all_refused} of the last {all_rows} rows, and a share of {} is allowed (.max_rejected_share())",
                limits.share
            )
        })
    }
}

/// The error that ends it.
pub(crate) fn too_many(table: &str, what: String, last: ClickHouseError) -> ClickHouseError {
    ClickHouseError::TooManyRefused { table: table.to_owned(), what, source: Box::new(last) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_batch_has_a_limit_of_its_own() {
        let limits = Limits { rows: 5, share: 1.0 };
        assert_eq!(Tally::default().exceeds(limits, 1000, 5), None);
        let text = Tally::default().exceeds(limits, 1000, 6).unwrap();
        assert!(text.contains("6 of 1000 rows of one batch"), "{text}");
    }

    #[test]
    fn a_share_counts_over_batches_of_any_size_once_it_says_something() {
        let limits = Limits::default();
        let mut tally = Tally::default();
        let mut ended = 0;
        // One row a batch, and all are bad.
        while tally.exceeds(limits, 1, 1).is_none() {
            tally.add(1, 1);
            ended += 1;
        }
        assert_eq!(ended + 1, LEAST_REFUSED);
        // A long run of good rows is forgotten in the end.
        let mut tally = Tally::default();
        for _ in 0..1000 {
            tally.add(32_768, 0);
        }
        let mut ended = 0;
        while tally.exceeds(limits, 100, 100).is_none() {
            tally.add(100, 100);
            ended += 1;
            assert!(ended < 1000, "never noticed");
        }
    }

    #[test]
    fn a_share_that_is_none_is_refused() {
        assert!(Limits { rows: 1, share: 1.5 }.problem().is_some());
        assert!(Limits { rows: 1, share: f64::NAN }.problem().is_some());
        assert!(Limits::default().problem().is_none());
    }
}
