//! No comma between two stages.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse
        reduce => Count::<Order>::new(), //~ expected `,` between the stage `map` and this one
    })
}
