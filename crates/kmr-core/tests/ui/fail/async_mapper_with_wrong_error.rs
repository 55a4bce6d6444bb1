//! An async mapper of values whose error is no error.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

struct Wrong;

fn wrong(_: &Record<'_>) -> Result<Order, Wrong> {
    Err(Wrong)
}

async fn later(_: Order) -> Result<Order, Wrong> {
    Err(Wrong)
}

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        map => later, //~ `Wrong` cannot be the error of a map stage | implement `std::error::Error` for it
        filter => |order| order.amount > 0,
        reduce => Count::<Order>::new(),
    })
}
