//! The stages between Kafka and a reducer: map stages, and the chain that fuses them.
//!
//! * `mapper`: map stages as types, and the one form of a map stage that the graph runs;
//! * `function`: the forms of a map stage (function, async function, closure, [`Mapper`] type);
//! * `output`: the types that a map stage may return;
//! * `diagnostics`: checks whose only purpose is a clear message of the compiler;
//! * `chain`: stages fused into one step a record, with no queue and no allocation between them;
//! * `options`: how stages run: several records at once, retries.

mod chain;
mod diagnostics;
mod function;
mod mapper;
mod name;
mod options;
mod output;

pub use chain::{
    Apply, Chain, Emission, Filter, Head, Many, Maybe, One, Pass, RecordPredicate, StageError, Step, Then,
};
pub use diagnostics::{RowsOf, RowsOfDeadLetters, stage_name};
pub use function::{IntoRecordMap, IntoValueMap, Predicate, RecordFunction, ValueFunction};
pub use mapper::{AsyncMapper, Mapper};
pub use name::Stage;
pub use options::Concurrency;
pub(crate) use options::MapOptions;
pub use output::{MapError, MapOutput, Mapped, Optional, Several};
pub(crate) use output::{Via, ViaOptional, ViaSeveral, via, via_optional, via_several};
