//! A value that is no expression.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        filter => |order: &Order| order.amount > , //~ stage `filter`: expected an expression
        reduce => Count::<Order>::new(),
    })
}
