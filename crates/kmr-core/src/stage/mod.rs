//! What users write between Kafka and a reducer: map stages, and the chain that fuses them.
//!
//! * `mapper`: map stages as types, and the one form of a map stage that the graph runs;
//! * `form`: the forms that users may write (functions, async functions, closures, [`Mapper`] types);
//! * `answer`: what they may return;
//! * `fit`: whether a reducer takes what is before it;
//! * `chain`: stages fused into one step per record, with no queue and no allocation between them;
//! * `options`: how they run: several records at once, records that are tried again.

mod answer;
mod chain;
mod fit;
mod form;
mod mapper;
mod name;
mod options;

pub use answer::{Answer, MapError, Optional, Several};
pub(crate) use answer::{Via, ViaOptional, ViaSeveral, via, via_optional, via_several};
pub use chain::{
    Apply, Chain, Emission, Filter, Head, Many, Maybe, One, Pass, RecordPredicate, StageError, Step, Then,
};
pub use fit::{RowsOf, RowsOfDeadLetters, stage_name};
pub use form::{IntoRecordMap, IntoValueMap, Predicate, RecordForm, ValueForm};
pub use mapper::{AsyncMapper, Mapper};
pub use name::Stage;
pub use options::Concurrency;
pub(crate) use options::MapOptions;
