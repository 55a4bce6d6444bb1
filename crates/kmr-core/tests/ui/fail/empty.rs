//! No stages.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({}) //~ the strategy is empty: it needs a map stage and a `reduce`
}

pub fn bare() -> impl IntoPipeline {
    processing_strategy!() //~ the strategy is empty: it needs a map stage and a `reduce`
}
