//! Where partitions start and where bounded runs end.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::error::Error;
use crate::member::LogPoint;
use crate::record::TopicPartition;

/// The starting position of partitions without a committed offset, for a backfill: a point in time,
/// or offsets that another system knows.
///
/// The chosen offset is committed once, so a restart continues there and does not choose again. To
/// start a group again, use another `group.id` or delete its offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// At the first record with this timestamp or a later one, in milliseconds since the Unix
    /// epoch. Without such a record, after the last record. Negative is 0. kmr requests the offsets
    /// of all partitions in one request per broker.
    Timestamp(i64),
    /// At these offsets. An offset that is neither in the log nor directly after its last record
    /// stops the consumer with [`Error::OffsetOutOfRange`], which names the offset and the bounds
    /// of the log. The [`ResetPolicy`] decides for partitions that are not named.
    Offsets(BTreeMap<TopicPartition, i64>),
}

impl StartAt {
    /// A point in time, in whole milliseconds.
    pub fn time(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// An offset for each partition.
    pub fn offsets(offsets: impl IntoIterator<Item = (TopicPartition, i64)>) -> Self {
        Self::Offsets(offsets.into_iter().collect())
    }
}

/// Where a bounded run ends: see [`ConsumerBuilder::until`](crate::ConsumerBuilder::until).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Until {
    /// At the end of each partition's log, which is determined when the partition is assigned for
    /// the first time.
    End,
    /// Before the first record with this timestamp or a later one, in milliseconds since the Unix
    /// epoch. Without such a record, at the end of the log.
    Timestamp(i64),
}

impl Until {
    /// A point in time, in whole milliseconds.
    pub fn time(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    pub(crate) fn point(self) -> LogPoint {
        match self {
            Self::End => LogPoint::End,
            Self::Timestamp(millis) => LogPoint::Time(millis),
        }
    }
}

/// Where a partition continues without a usable offset. Either the group has committed none
/// ([`ConsumerBuilder::offset_reset_policy`](crate::ConsumerBuilder::offset_reset_policy)), or the
/// committed offset is no longer in the log
/// ([`ConsumerBuilder::out_of_range_policy`](crate::ConsumerBuilder::out_of_range_policy)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetPolicy {
    /// At the lowest offset in the log: no existing record is skipped.
    #[default]
    Earliest,
    /// After the last record: all records that are in the log at that time are skipped. Partitions
    /// and topics that are added while the consumer runs start at their lowest offset all the same.
    /// Producers may find them first.
    Latest,
    /// The consumer stops with an error that names the partition and the bounds of its log.
    Fail,
}

impl ResetPolicy {
    /// The policy for a value of `auto.offset.reset`.
    pub(crate) fn from_setting(value: &str) -> Result<Self, Error> {
        match value {
            "earliest" | "smallest" | "beginning" => Ok(Self::Earliest), // words: quoted
            "latest" | "largest" | "end" => Ok(Self::Latest),
            "error" | "none" => Ok(Self::Fail),
            other => Err(Error::Config(format!(
                "auto.offset.reset is {other:?}; it has to be earliest, latest or error"
            ))),
        }
    }
}
