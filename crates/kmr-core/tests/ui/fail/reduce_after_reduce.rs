//! A second reducer that does not take what the first one returns.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        reduce => Count::<Order>::new(),
        reduce => Count::<Line>::new(), //~ this `reduce` does not take what the `reduce` before it emits | Line>`, not rows of `usize`
        reduce_err => Count::<DeadLetter>::new(),
    })
}
