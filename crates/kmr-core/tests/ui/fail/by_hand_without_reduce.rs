//! By hand: a strategy without a reduce.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

fn run(_: impl IntoPipeline) {}

pub fn strategy() {
    run(Strategy::new().map(parse)); //~ this strategy is not complete: it has no `reduce` stage
}
