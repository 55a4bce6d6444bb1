//! A reducer of other rows than the map stage emits.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        reduce => Count::<Line>::new(), //~ this `reduce` does not take what the `map` before it emits | Line>`, not rows of `Order`
        reduce_err => Count::<DeadLetter>::new(),
    })
}
