//! A closure that changes what it captured. The tasks of all partitions call it at once.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    let mut orders = 0;
    processing_strategy!({
        map => parse,
        map => move |order: Order| {
            orders += 1; //~ cannot assign to `orders`, as it is a captured variable in a `Fn` closure
            Ok::<_, BoxError>(order.amount + orders)
        },
        reduce => Count::<u32>::new(),
    })
}
