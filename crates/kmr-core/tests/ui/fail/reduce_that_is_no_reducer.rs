//! Something else than a reducer.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        reduce => parse, //~ is not a reducer | `reduce` and `reduce_err` take a type that implements `kmr_core::Reducer`
        reduce_err => Count::<DeadLetter>::new(),
    })
}
