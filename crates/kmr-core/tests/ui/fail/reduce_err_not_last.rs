//! `reduce_err` before a map stage.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        reduce => Count::<Order>::new(),
        reduce_err => Count::<DeadLetter>::new(), //~ `reduce_err` is not the last stage: move it after the `map` below
        map => |count: usize| Ok::<_, std::fmt::Error>(count),
    })
}
