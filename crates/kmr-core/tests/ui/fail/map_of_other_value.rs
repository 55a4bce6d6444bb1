//! A map stage that takes something else than the one before emits.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        map => length, //~ this `map` does not take what the `map` before it emits: it has to be a function of `Order`
        reduce => Count::<usize>::new(),
    })
}
