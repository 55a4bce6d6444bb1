//! A map stage that does not take what the reducer returns.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        reduce => Count::<Order>::new(),
        map => amount, //~ this `map` does not take what the `reduce` before it emits: it has to be a function of `usize`
        reduce => Count::<u32>::new(),
    })
}
