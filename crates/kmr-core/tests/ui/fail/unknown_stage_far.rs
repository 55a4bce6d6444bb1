//! A stage that does not exist.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        sink => Count::<Order>::new(), //~ unknown stage `sink` | the stages are `filter`, `map`, `filter_map`, `flat_map`, `reduce`, `reduce_err`
    })
}
