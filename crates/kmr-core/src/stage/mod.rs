//! What users write between Kafka and a reducer: map stages, and the chain that fuses them.
//!
//! * `mapper`: the forms that a map stage takes (functions, async functions, [`Mapper`] types);
//! * `chain`: stages fused into one step per record, with no queue and no allocation between them.

mod chain;
mod mapper;

pub use chain::{
    Apply, Chain, Emission, Filter, Head, Many, Maybe, One, Pass, RecordPredicate, Stage, StageError, Step,
    Then,
};
pub(crate) use mapper::BoxFuture;
pub use mapper::{AsyncMapper, IntoRecordMap, IntoValueMap, Mapper};
