//! A mapper whose error is no error.

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
        map => wrong, //~ `Wrong` cannot be the error of a map stage | does not convert into `kmr_core::BoxError`
        map => amount,
        reduce => Count::<u32>::new(),
    })
}
