//! A `flat_map` that returns one value.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        flat_map => parse, //~ a `flat_map` stage returns a `Result` of something that can be iterated over, not of
        reduce => Count::<Order>::new(),
    })
}
