//! How the map stages of a strategy run: several records of a partition at once, and retries.

use crate::reducer::RetryPolicy;

/// How many records of one partition are in progress at once in asynchronous map stages.
///
/// Partitions are always mapped in parallel. Inside a partition the default is one record after the
/// other. With any setting, rows reach the reducer in the order of the records, each record once,
/// and offsets are committed in order.
///
/// A slow record delays the output of later records, but not their start, until 16 records for each
/// allowed one have started or wait. Synchronous map stages are not affected, because their records
/// do not wait.
///
/// A small number leaves a mapper idle that waits for HTTP or a database. A large one overloads
/// what the mapper waits for. Records in progress count against the memory budget.
///
/// # Examples
/// ```
/// use kmr_core::Concurrency;
///
/// assert_eq!(Concurrency::from(16), Concurrency::in_order(16));
/// let by_customer = Concurrency::by_key(64);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    records: usize,
    by_key: bool,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self::in_order(1)
    }
}

impl From<usize> for Concurrency {
    fn from(records: usize) -> Self {
        Self::in_order(records)
    }
}

impl Concurrency {
    /// Up to `records` records of a partition are in progress at once, at least 1. They start in
    /// order, and may overtake each other inside the map stages.
    pub fn in_order(records: usize) -> Self {
        Self { records, by_key: false }
    }

    /// The same, but records with the same key are mapped one after the other, in order. A record
    /// starts when all earlier records of its key are done, retries included. Records without a key
    /// do not wait for each other.
    pub fn by_key(records: usize) -> Self {
        Self { records, by_key: true }
    }

    /// Records in progress at once.
    pub(crate) fn records(self) -> usize {
        self.records
    }

    /// Whether a record waits for those of its key.
    pub(crate) fn is_by_key(self) -> bool {
        self.by_key
    }
}

/// The settings of the map stages before the first reduce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MapOptions {
    pub(crate) concurrency: Concurrency,
    pub(crate) retry: RetryPolicy,
}

impl MapOptions {
    /// The first value that cannot work, with the reason.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        (self.concurrency.records == 0).then_some("map_concurrency is 0: at least 1 record must be allowed")
    }
}
