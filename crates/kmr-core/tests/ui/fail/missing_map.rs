//! A `reduce` without a map stage.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        filter => |record| record.key().is_some(),
        reduce => Count::<Order>::new(), //~ no map stage before this `reduce`
        reduce_err => Count::<DeadLetter>::new(),
    })
}
