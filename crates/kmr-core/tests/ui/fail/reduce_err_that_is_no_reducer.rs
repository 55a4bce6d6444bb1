//! Something else than a reducer for the errors.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        reduce => Count::<Order>::new(),
        reduce_err => 5, //~ `{integer}` is not a reducer
    })
}
