//! What a contender's process is told, as one argument in JSON.

use serde::{Deserialize, Serialize};

/// Rows in a batch, and its greatest age.
pub(crate) const BATCH_ROWS: usize = 32_768;
pub(crate) const BATCH_AGE: std::time::Duration = std::time::Duration::from_secs(4);

/// Settings of librdkafka that whoever tunes a consumer finds: what kmr has as defaults. With librdkafka's own, a full queue is looked
/// at again after a second, and at these rates most of that second passes with an empty one. The ceiling goes without them: its queue
/// is never full.
const FETCH: [(&str, &str); 3] =
    [("fetch.queue.backoff.ms", "5"), ("fetch.min.bytes", "400000"), ("fetch.wait.max.ms", "100")];

/// What a record becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Checked to be UTF-8; a row says where it was and when it was seen.
    W1,
    /// Decoded from JSON into a row of six columns.
    W2,
}

/// One run of one contender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) work: Work,
    /// How many records the topic holds, and so how many rows there are to be.
    pub(crate) records: u64,
    pub(crate) broker: String,
    pub(crate) topic: String,
    pub(crate) group: String,
    /// ClickHouse's address.
    pub(crate) url: String,
    pub(crate) database: String,
    pub(crate) table: String,
    /// LZ4 on the way to ClickHouse, or nothing.
    pub(crate) lz4: bool,
    /// Whether a rival has kmr's fetch settings, or comes with librdkafka's own.
    pub(crate) tuned: bool,
}

impl Job {
    /// What a rival's consumer has of kmr's fetch settings.
    pub(crate) fn fetch(&self) -> impl Iterator<Item = (String, String)> {
        let settings = if self.tuned { &FETCH[..] } else { &[] };
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
    }

    /// The ClickHouse client of those contenders that use the crate's own.
    pub(crate) fn client(&self) -> clickhouse::Client {
        let compression = if self.lz4 { clickhouse::Compression::Lz4 } else { clickhouse::Compression::None };
        clickhouse::Client::default()
            .with_url(&self.url)
            .with_database(&self.database)
            .with_compression(compression)
            // kmr's setting, too: an answer means that the rows are in.
            .with_setting("async_insert", "0")
    }
}
