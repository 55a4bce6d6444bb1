//! A filter that does not return a bool.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        filter => |order: &Order| order.amount, //~ expected `bool`, found `u32`
        reduce => Count::<Order>::new(),
    })
}
