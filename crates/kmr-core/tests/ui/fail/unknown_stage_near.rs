//! The name of a stage with a slip.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        redcue => Count::<Order>::new(), //~ unknown stage `redcue`: did you mean `reduce`? | the stages are `filter`, `map`
    })
}
