//! A `filter_map` on values that does not return an Option.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        filter_map => amount, //~ a `filter_map` stage returns `Result<Option<T>, E>`, not a `Result` of `u32`
        reduce => Count::<u32>::new(),
    })
}
