//! All mistakes are reported at once.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        mapp => parse, //~ unknown stage `mapp`: did you mean `map`?
        filter |order| order.amount > 0, //~ stage `filter`: expected `=>`
        reduce_err => Count::<DeadLetter>::new(), //~ `reduce_err` is not the last stage
        reduce => Count::<Order>::new(),
        reduce_err => Count::<DeadLetter>::new(), //~ duplicate `reduce_err`
    })
}
