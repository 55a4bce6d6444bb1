//! A colon where `=>` belongs.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        reduce: Count::<Order>::new(), //~ stage `reduce`: expected `=>` after its name, as in `reduce => value`
    })
}
