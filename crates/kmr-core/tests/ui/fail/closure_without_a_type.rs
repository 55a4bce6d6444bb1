//! A closure on records whose argument has no type.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => |record| Ok::<_, BoxError>(record.partition()), //~ type annotations needed | consider giving this closure parameter an explicit type
        reduce => Count::<i32>::new(),
    })
}
