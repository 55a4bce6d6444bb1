//! What users write between Kafka and a reducer: map stages, and the chain that fuses them.
//!
//! * [`mapper`](self): the forms that a map stage takes (functions, async functions, [`Mapper`] types);
//! * `chain`: stages fused into one step per record, with no queue and no allocation between them.

mod chain;
mod mapper;

pub use chain::{
    Apply, Chain, Emission, Filter, Head, Many, Maybe, One, Pass, Stage, StageError, Step, Then,
};
pub use mapper::{
    AsyncFunction, AsyncMapper, AsyncMapperType, Call, Function, IntoRecordMap, IntoValueMap, Mapper,
    MapperType, RecordMap, ValueMap,
};
