//! No `reduce`.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        filter => |order| order.amount > 0, //~ no `reduce` stage: the strategy needs one after this `filter`
    })
}
