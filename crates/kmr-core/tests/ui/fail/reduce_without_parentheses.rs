//! The constructor of a sink, which is not called.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        reduce => Count::<Order>::new, //~ is not a reducer | use parentheses to call
    })
}
