//! An `await` in a function that is not async.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

fn order(record: &Record<'_>) -> Result<Order, BoxError> {
    Ok(look_up(record.to_owned()).await?) //~ `await` is only allowed inside `async` functions and blocks | this is not `async`
}

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => order,
        reduce => Count::<Order>::new(),
    })
}
