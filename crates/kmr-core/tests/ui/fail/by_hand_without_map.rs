//! By hand: a reduce without a map stage.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    Strategy::new().reduce(Count::<Order>::new()) //~ the method `reduce` exists | `Records: kmr_core::__private::Chain`
}
