//! A `reduce` before the first map stage.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        reduce => Count::<Order>::new(), //~ stage `reduce` is before the first map stage: move it after the `map`
        map => parse,
    })
}
