//! The policies as the decoder needs them, after the start.

use crate::clickhouse::json::options::{Duplicates, ExcessDigits, LocalTimes, Missing, Nulls, NumbersAsText};
use crate::clickhouse::table::ranges::{OutOfRange, TimeZone};

/// The policies that hold for all columns.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) out_of_range: OutOfRange,
    pub(super) missing: Missing,
    pub(super) nulls: Nulls,
    pub(super) duplicates: Duplicates,
    pub(super) numbers_as_text: NumbersAsText,
    pub(super) excess_digits: ExcessDigits,
    pub(super) local_times: LocalTimes,
    pub(super) rejects_unknown: bool,
    /// Whether the server's own time zone is UTC.
    pub(super) server_is_utc: bool,
}

impl Rules {
    /// Whether a time without an offset can be stored in a column of this time zone.
    pub(super) fn allows_local(&self, zone: &TimeZone) -> bool {
        self.local_times == LocalTimes::Utc || zone.as_deref().map_or(self.server_is_utc, is_utc)
    }
}

/// Whether a time zone never differs from UTC, by its name.
pub(super) fn is_utc(zone: &str) -> bool {
    let zone = zone.strip_prefix("Etc/").unwrap_or(zone);
    ["UTC", "UCT", "GMT", "GMT0", "GMT+0", "GMT-0", "Zulu", "Universal", "Greenwich"].contains(&zone)
}
