//! Only a filter.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        filter => |record| record.key().is_some(), //~ no map stage and no `reduce`: the strategy needs both after this `filter`
    })
}
