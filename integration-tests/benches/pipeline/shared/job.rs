//! The job of a contender's process, which it receives as one argument in JSON.

use serde::{Deserialize, Serialize};

/// Rows in a batch, and its maximum age.
pub(crate) const BATCH_ROWS: usize = 32_768;
pub(crate) const BATCH_AGE: std::time::Duration = std::time::Duration::from_secs(4);

/// kmr's default fetch settings, as a tuned consumer has them. With librdkafka's defaults a
/// consumer checks a full queue again only after a second, and at these rates the queue is empty
/// for most of it. The ceiling needs no tuning, because its queue is never full.
const FETCH: [(&str, &str); 3] =
    [("fetch.queue.backoff.ms", "5"), ("fetch.min.bytes", "400000"), ("fetch.wait.max.ms", "100")];

/// The processing of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Checks for UTF-8, and makes a row of position and time.
    W1,
    /// Decodes JSON into a row of six columns.
    W2,
}

/// One run of one contender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) work: Work,
    /// Number of records in the topic, and so of rows.
    pub(crate) records: u64,
    pub(crate) broker: String,
    pub(crate) topic: String,
    pub(crate) group: String,
    /// URL of ClickHouse.
    pub(crate) url: String,
    pub(crate) database: String,
    pub(crate) table: String,
    /// Whether inserts are compressed with LZ4.
    pub(crate) lz4: bool,
    /// Whether a rival has kmr's fetch settings, or librdkafka's defaults.
    pub(crate) tuned: bool,
}

impl Job {
    /// The fetch settings of a rival's consumer.
    pub(crate) fn fetch(&self) -> impl Iterator<Item = (String, String)> {
        let settings = if self.tuned { &FETCH[..] } else { &[] };
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
    }

    /// The ClickHouse client of contenders that use the `clickhouse` crate.
    pub(crate) fn client(&self) -> clickhouse::Client {
        let compression = if self.lz4 { clickhouse::Compression::Lz4 } else { clickhouse::Compression::None };
        clickhouse::Client::default()
            .with_url(&self.url)
            .with_database(&self.database)
            .with_compression(compression)
            // As in kmr: a response means that the rows are stored.
            .with_setting("async_insert", "0")
    }
}
