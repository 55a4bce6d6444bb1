//! A closure that does not name its error type.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        map => |order| Ok(order.amount), //~ type annotations needed | cannot infer type of the type parameter `E`
        reduce => Count::<u32>::new(),
    })
}
