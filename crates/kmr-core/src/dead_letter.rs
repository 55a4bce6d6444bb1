//! What `reduce_err` receives: a record, or a range of records, that failed for good, with the reason.

use std::fmt;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::error::{BoxError, chain_text};
use crate::record::{OwnedRecord, TopicPartition};
use crate::reducer::SourceRange;
use crate::stage::Stage;

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
    /// The record itself. `None` where it is gone: a row refused by the sink, or a failure behind a reduce. Topic,
    /// partition and offset still find it in Kafka.
    pub record: Option<OwnedRecord>,
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
            stage: stage.into(),
            error: error.into(),
        }
    }

    /// Dead letters for records that are not at hand any more, one for each range.
    pub(crate) fn of_ranges(sources: &[SourceRange], stage: &Stage, error: BoxError) -> Vec<DeadLetter> {
        let reason = chain_text(&*error);
        let mut error = Some(error);
        let letter = |source: &SourceRange| DeadLetter {
            partition: source.partition.clone(),
            offset: source.first,
            last_offset: source.last,
            record: None,
            stage: stage.to_string(),
            error: error.take().unwrap_or_else(|| reason.clone().into()),
        };
        sources.iter().map(letter).collect()
    }

    /// The error with all its causes, in one line.
    pub fn reason(&self) -> String {
        chain_text(&*self.error)
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

/// Serialises as a flat object: topic, partition, offset, last_offset, stage, error, record.
impl Serialize for DeadLetter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("DeadLetter", 7)?;
        object.serialize_field("topic", self.partition.topic())?;
        object.serialize_field("partition", &self.partition.partition())?;
        object.serialize_field("offset", &self.offset)?;
        object.serialize_field("last_offset", &self.last_offset)?;
        object.serialize_field("stage", &self.stage)?;
        object.serialize_field("error", &self.reason())?;
        object.serialize_field("record", &self.record)?;
        object.end()
    }
}
