//! Two stages `reduce_err`.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        reduce => Count::<Order>::new(),
        reduce_err => Count::<DeadLetter>::new(),
        reduce_err => Count::<DeadLetter>::new(), //~ duplicate `reduce_err`: a strategy has one
    })
}
