//! A consumer without a strategy, and one whose strategy is not complete.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn without() -> Result<Consumer, Error> {
    Consumer::builder().topics(["orders"]).config(ClientConfig::new()).build() //~ this consumer has no strategy | call `.strategy(processing_strategy!({ … }))` before `.build()`
}

pub fn incomplete() -> Result<Consumer, Error> {
    Consumer::builder().topics(["orders"]).strategy(Strategy::new().map(parse)).build() //~ this strategy is not complete: it has no `reduce` stage | add `.reduce(…)` after the map stages
}
