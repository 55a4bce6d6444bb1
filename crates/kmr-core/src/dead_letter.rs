//! Dead letters: records, or ranges of records, that failed permanently, with the reason.

use std::fmt;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::error::{BoxError, CodedError, error_chain};
use crate::record::{OwnedRecord, TopicPartition};
use crate::reducer::SourceRange;
use crate::stage::Stage;

/// Why a dead letter has no record: it stands for a range, or its record is not read again yet.
const NOT_READ: &str = "the failure belongs to a whole range of records, or to a value made of them";

/// A record that failed at a stage, as `reduce_err` receives it. kmr commits the record's offset
/// only after its dead letter has been delivered.
#[derive(Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The partition of the record.
    pub partition: TopicPartition,
    /// The record's offset. For a failure after a reduce: the first offset of the range that the
    /// value stands for.
    pub offset: i64,
    /// The last offset of the range. Equal to `offset` for a single record.
    pub last_offset: i64,
    /// The record itself. kmr reads it from Kafka again if a sink rejected its row. `None` for a
    /// range of records, or if the record cannot be read: see
    /// [`missing_reason`](Self::missing_reason).
    pub record: Option<OwnedRecord>,
    /// Why `record` is `None`: the dead letter stands for a range of records, the log does not hold
    /// the record any more, or kmr could not read it again in time.
    pub missing_reason: Option<String>,
    /// The stage that failed, as in `map 1`.
    pub stage: String,
    /// The error of that stage.
    pub error: BoxError,
}

impl DeadLetter {
    /// A dead letter for one record, for tests of an error sink.
    pub fn new(record: OwnedRecord, stage: impl Into<String>, error: impl Into<BoxError>) -> Self {
        Self {
            partition: TopicPartition::new(record.topic(), record.partition()),
            offset: record.offset(),
            last_offset: record.offset(),
            record: Some(record),
            missing_reason: None,
            stage: stage.into(),
            error: error.into(),
        }
    }

    /// Dead letters for records that kmr no longer has, one for each range.
    pub(crate) fn of_ranges(sources: &[SourceRange], stage: &Stage, error: BoxError) -> Vec<DeadLetter> {
        let reason = error_chain(&*error);
        let mut error = Some(error);
        let dead_letter = |source: &SourceRange| DeadLetter {
            partition: source.partition.clone(),
            offset: source.first,
            last_offset: source.last,
            record: None,
            missing_reason: Some(NOT_READ.to_owned()),
            stage: stage.to_string(),
            error: error.take().unwrap_or_else(|| reason.clone().into()),
        };
        sources.iter().map(dead_letter).collect()
    }

    /// Whether it stands for a single record that kmr no longer has.
    pub(crate) fn lacks_its_record(&self) -> bool {
        self.record.is_none() && self.offset == self.last_offset
    }

    /// The outermost code of the error and its causes, if one has a code: see [`CodedError`].
    pub fn code(&self) -> Option<&str> {
        CodedError::of(&*self.error)
    }

    /// The error with all its causes, in one line.
    pub fn reason(&self) -> String {
        error_chain(&*self.error)
    }
}

impl fmt::Display for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} offset {}", self.partition, self.offset)?;
        if self.last_offset != self.offset {
            write!(f, " to {}", self.last_offset)?;
        }
        write!(f, " failed at {}: {}", self.stage, self.reason())
    }
}

/// Serialises as a flat object: topic, partition, offset, last_offset, stage, error, code, record,
/// missing.
impl Serialize for DeadLetter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("DeadLetter", 9)?;
        object.serialize_field("topic", self.partition.topic())?;
        object.serialize_field("partition", &self.partition.partition())?;
        object.serialize_field("offset", &self.offset)?;
        object.serialize_field("last_offset", &self.last_offset)?;
        object.serialize_field("stage", &self.stage)?;
        object.serialize_field("error", &self.reason())?;
        object.serialize_field("code", &self.code())?;
        object.serialize_field("record", &self.record)?;
        object.serialize_field("missing", &self.missing_reason)?;
        object.end()
    }
}
