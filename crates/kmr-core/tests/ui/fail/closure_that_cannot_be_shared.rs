//! A closure that owns what threads cannot share: all partitions call it at once.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        filter => { //~ `Cell<u32>` cannot be shared between threads safely
            let least = std::cell::Cell::new(1);
            move |order| order.amount > least.get()
        },
        reduce => Count::<Order>::new(),
    })
}
