//! Limits the repetitions of an insert that can store its rows again, and reports them.
//!
//! A retry sends the same rows under the same token. A table with a deduplication window drops what
//! it has stored already. A table without one stores it again.

use crate::clickhouse::batch::destination::Destination;
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::error_code::{ErrorClass, Stored};
use crate::clickhouse::telemetry;

/// Retries after an error whose code kmr does not know.
pub(crate) const UNKNOWN_RETRIES: u32 = 4;
/// Retries after a temporary error of a view, each of which stores all rows in the table once more.
pub(crate) const DOUBLING_RETRIES: u32 = 3;

/// The failures of one batch that are followed by a few retries only, or that may double rows.
#[derive(Debug, Default)]
pub(crate) struct Repetition {
    /// Failures whose number is limited.
    limited: u32,
    reported: bool,
}

/// What a retry after an error risks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Risk {
    /// The retry may store rows again.
    can_double: bool,
    limit: Option<Limit>,
}

/// Why an error is retried a few times only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    retries: u32,
    why: &'static str,
}

const UNKNOWN: Limit = Limit {
    retries: UNKNOWN_RETRIES,
    why: "kmr does not know the error's code, so it cannot tell whether a retry can succeed",
};
const DOUBLING: Limit = Limit {
    retries: DOUBLING_RETRIES,
    why: "each repetition stores the rows in the table once more, because the table or a target of its views has no \
          deduplication window, or because the server does not deduplicate asynchronous inserts",
};

impl Risk {
    /// The risk of a retry after `error` of a batch without a plan.
    pub(crate) async fn of(destination: &Destination, error: &ClickHouseError) -> Self {
        if !error.is_retryable() {
            return Self { can_double: false, limit: None };
        }
        let can_double = error.may_be_stored() && !remembers_tokens(destination, error).await;
        let limit = match error.stored() {
            _ if error.class() == Some(ErrorClass::Unknown) => Some(UNKNOWN),
            Stored::Table if can_double => Some(DOUBLING),
            _ => None,
        };
        Self { can_double, limit }
    }
}

impl Repetition {
    /// Reports an insert that was dropped before its response, by the timeout of its attempt.
    pub(crate) fn dropped(&mut self, table: &str, rows: u64, remembers_tokens: bool) {
        if !remembers_tokens && !std::mem::replace(&mut self.reported, true) {
            telemetry::dropped_insert_may_be_stored(table, rows);
        }
    }

    /// Counts and reports a failure of a batch of `rows` rows. Returns the error that the attempt
    /// ends with.
    pub(crate) fn failed(
        &mut self,
        table: &str,
        rows: u64,
        risk: Risk,
        error: ClickHouseError,
    ) -> ClickHouseError {
        if risk.can_double && !std::mem::replace(&mut self.reported, true) {
            telemetry::retry_may_store_again(table, rows, risk.limit.map(|limit| limit.retries), &error);
        }
        let Some(Limit { retries, why }) = risk.limit else { return error };
        self.limited += 1;
        if self.limited <= retries {
            return error;
        }
        let (table, failures) = (table.to_owned(), self.limited);
        ClickHouseError::Repeated { table, failures, why, source: Box::new(error) }
    }
}

/// Whether the table is known to drop rows that it has stored already. After a lost connection the
/// server is not asked, because it may be down.
async fn remembers_tokens(destination: &Destination, error: &ClickHouseError) -> bool {
    if !destination.deduplicates() {
        return false;
    }
    let (facts, hosts) = (&destination.facts, &destination.hosts);
    if error.code().is_none() {
        return destination.is_known_to_remember_tokens();
    }
    facts.remembers_tokens(hosts.endpoint(hosts.pick(None)), &destination.name).await
}
