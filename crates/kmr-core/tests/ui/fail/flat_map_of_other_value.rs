//! A `flat_map` that takes something else than the filtered values.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        filter => |order| order.amount > 0,
        flat_map => |line: Line| Ok::<_, std::fmt::Error>(vec![line]), //~ this `flat_map` does not take what the `filter` before it emits: it has to be a function of `Order`
        reduce => Count::<Line>::new(),
    })
}
