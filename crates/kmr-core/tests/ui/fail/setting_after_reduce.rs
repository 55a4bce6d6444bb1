//! Settings are about the map stages before the first reduce.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        reduce => Count::<Order>::new(),
        map_concurrency => 4, //~ setting `map_concurrency` is after a `reduce`: move it before the first map stage
        map => |n: usize| Ok::<_, std::convert::Infallible>(n),
    })
}
