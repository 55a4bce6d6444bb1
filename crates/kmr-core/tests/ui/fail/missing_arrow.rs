//! No `=>`.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map parse, //~ stage `map`: expected `=>` after its name
        reduce => Count::<Order>::new(),
    })
}
