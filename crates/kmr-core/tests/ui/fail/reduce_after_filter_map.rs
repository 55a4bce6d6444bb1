//! A reducer that does not take what a `filter_map` emits.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        filter_map => |order| Ok::<_, std::fmt::Error>(Some(order.amount)),
        reduce => Count::<Order>::new(), //~ this `reduce` does not take what the `filter_map` before it emits | Order>`, not rows of `u32`
    })
}
