//! Something after the list.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({ map => parse, reduce => Count::<Order>::new() }, 5) //~ expected nothing after the `}` that ends the list of stages
}
