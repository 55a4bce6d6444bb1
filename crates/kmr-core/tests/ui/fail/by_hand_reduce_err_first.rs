//! By hand: `reduce_err` before a reduce.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> Pipeline {
    Strategy::new().map(parse).reduce_err(Count::<DeadLetter>::new()) //~ no method named `reduce_err` found
}
