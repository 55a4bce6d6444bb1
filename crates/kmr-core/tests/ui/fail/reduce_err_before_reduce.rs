//! `reduce_err` before a `reduce`.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        reduce_err => Count::<DeadLetter>::new(), //~ `reduce_err` is not the last stage: move it after the `reduce` below
        reduce => Count::<Order>::new(),
    })
}
