//! Something else than a list of stages.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!(parse, Count::<Order>::new()) //~ expected a list of stages, as in `{ map => parse, reduce => writer }`
}

pub fn chain() -> impl IntoPipeline {
    processing_strategy!(Strategy::new().map(parse)) //~ expected a list of stages
}
