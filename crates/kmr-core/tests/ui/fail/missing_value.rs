//! A stage without a value.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map =>, //~ stage `map`: expected a value, as in `map => value`
        reduce => Count::<Order>::new(),
    })
}
