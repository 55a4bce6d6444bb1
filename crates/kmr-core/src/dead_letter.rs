//! What `reduce_err` receives: a record, or a range of records, that failed for good, with the reason.

use std::fmt;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::error::{BoxError, CodedError, error_chain};
use crate::record::{OwnedRecord, TopicPartition};
use crate::reducer::SourceRange;
use crate::stage::Stage;

/// What is missing of a letter for a range, or before its record is read again.
const NOT_READ: &str = "the failure is that of a whole range of records, or of what became of them";

/// A record that failed at some stage. Its offset is not committed before its dead letter has been delivered.
#[derive(Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Where the record came from.
    pub partition: TopicPartition,
    /// The record's offset; for a failure behind a reduce, the first of the range that the value stands for.
    pub offset: i64,
    /// The last offset of the range; the same as `offset` for a single record.
    pub last_offset: i64,
    /// The record itself. One whose row was refused by a sink is read from Kafka again. `None` where there is not one record to
    /// show, or none any more: then [`missing_reason`](Self::missing_reason) says why.
    pub record: Option<OwnedRecord>,
    /// Why `record` is `None`: the letter stands for a range of records, the log does not hold the record any more, or it could
    /// not be read again in time.
    pub missing_reason: Option<String>,
    /// The stage that failed, as in `map 1`.
    pub stage: String,
    /// Why.
    pub error: BoxError,
}

impl DeadLetter {
    /// A dead letter for one record, as a test of an error sink needs it.
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

    /// Dead letters for records that are not at hand any more, one for each range.
    pub(crate) fn of_ranges(sources: &[SourceRange], stage: &Stage, error: BoxError) -> Vec<DeadLetter> {
        let reason = error_chain(&*error);
        let mut error = Some(error);
        let letter = |source: &SourceRange| DeadLetter {
            partition: source.partition.clone(),
            offset: source.first,
            last_offset: source.last,
            record: None,
            missing_reason: Some(NOT_READ.to_owned()),
            stage: stage.to_string(),
            error: error.take().unwrap_or_else(|| reason.clone().into()),
        };
        sources.iter().map(letter).collect()
    }

    /// Whether it stands for a single record that is not at hand.
    pub(crate) fn lacks_its_record(&self) -> bool {
        self.record.is_none() && self.offset == self.last_offset
    }

    /// The code of the error, or of one of its causes, if one has a code: see [`CodedError`].
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

/// Serialises as a flat object: topic, partition, offset, last_offset, stage, error, code, record, missing.
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
