//! The concurrency is a number or a `Concurrency`.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map_concurrency => "many", //~ the trait bound `Concurrency: From<&str>` is not satisfied
        map => look_up,
        reduce => Count::<Order>::new(),
    })
}
