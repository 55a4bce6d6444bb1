//! A `filter_map` that does not return an Option.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        filter_map => parse, //~ a `filter_map` stage returns `Result<Option<T>, E>`, not a `Result` of
        reduce => Count::<Order>::new(),
    })
}
