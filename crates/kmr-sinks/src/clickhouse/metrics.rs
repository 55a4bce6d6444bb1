//! The metrics of inserts. A scrape of the consumer returns them, too (docs/metrics.md). Without
//! the feature `metrics` nothing is recorded.

use std::time::Duration;

use crate::clickhouse::error::ClickHouseError;

/// Records the inserts of one writer.
#[derive(Clone, Debug, Default)]
pub(crate) struct InsertMetrics {
    #[cfg(feature = "metrics")]
    stage: kmr_core::StageMetrics,
}

/// An insert that has ended.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "the feature reads it"))]
pub(crate) struct EndedInsert<'i> {
    pub(crate) table: &'i str,
    pub(crate) rows: u64,
    /// Size of the body as sent.
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    pub(crate) error: Option<&'i ClickHouseError>,
}

#[cfg(feature = "metrics")]
mod recorded {
    use kmr_core::{Metric, StageMetrics};

    use super::{EndedInsert, InsertMetrics};

    const INSERTS: Metric =
        Metric::counter("kmr_clickhouse_inserts_total", "Inserts, by outcome and ClickHouse's error code");
    const ROWS: Metric = Metric::counter("kmr_clickhouse_inserted_rows_total", "Rows of accepted inserts");
    const BYTES: Metric =
        Metric::counter("kmr_clickhouse_sent_bytes_total", "Bodies of accepted inserts as sent");
    const DURATION: Metric = Metric::durations("kmr_clickhouse_insert_duration_seconds", "Time of an insert");

    impl InsertMetrics {
        pub(crate) fn new(stage: StageMetrics) -> Self {
            Self { stage }
        }

        pub(crate) fn ended(&self, insert: &EndedInsert<'_>) {
            let EndedInsert { table, rows, bytes, took, error } = *insert;
            let code = error.and_then(|error| error.code()).map(|code| code.to_string());
            let outcome = match error {
                None => "accepted",
                Some(error) if error.is_retryable() => "retryable",
                Some(_) => "fatal",
            };
            let labels =
                [("table", table), ("outcome", outcome), ("code", code.as_deref().unwrap_or_default())];
            self.stage.add(INSERTS, &labels, 1);
            self.stage.observe(DURATION, &[("table", table)], took);
            if error.is_none() {
                self.stage.add(ROWS, &[("table", table)], rows);
                self.stage.add(BYTES, &[("table", table)], bytes);
            }
        }
    }
}

#[cfg(not(feature = "metrics"))]
#[allow(clippy::unused_self, reason = "the same call as with the feature")]
impl InsertMetrics {
    #[inline(always)]
    pub(crate) fn ended(&self, _: &EndedInsert<'_>) {}
}
