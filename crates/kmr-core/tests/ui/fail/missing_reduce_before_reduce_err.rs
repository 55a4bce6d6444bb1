//! No `reduce`, but a `reduce_err`.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        reduce_err => Count::<DeadLetter>::new(), //~ no `reduce` stage: the strategy needs one before this `reduce_err`
    })
}
