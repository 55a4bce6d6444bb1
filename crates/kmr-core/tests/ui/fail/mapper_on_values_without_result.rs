//! A mapper of values that does not return a Result.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        map => |order| order.amount, //~ a map stage returns `Result<T, E>` or a future of one, not `u32`
        reduce => Count::<u32>::new(),
    })
}
