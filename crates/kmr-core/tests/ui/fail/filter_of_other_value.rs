//! A filter on something else than the map stage emits.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        filter => |line: &Line| line.0.is_empty(), //~ this `filter` does not take what the `map` before it emits: it has to be a function of `&
        reduce => Count::<Order>::new(),
    })
}
