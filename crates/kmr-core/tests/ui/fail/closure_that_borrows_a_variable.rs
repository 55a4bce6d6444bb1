//! A closure that borrows a variable of its function. It outlives the function.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy(prefix: &str) -> impl IntoPipeline {
    processing_strategy!({
        map => |record: &Record<'_>| Ok::<_, BoxError>(prefix.len() + record.topic().len()), //~ borrowed data escapes outside of function | argument requires that `'1` must outlive `'static`
        reduce => Count::<usize>::new(),
    })
}
