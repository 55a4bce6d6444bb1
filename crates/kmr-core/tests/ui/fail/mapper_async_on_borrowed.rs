//! An async function on the borrowed record.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

async fn borrowed(_: &Record<'_>) -> Result<Order, BoxError> {
    Ok(Order { amount: 1 })
}

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => borrowed, //~ is not a map stage on Kafka records | `async fn(OwnedRecord) -> Result<T, E>`
        reduce => Count::<Order>::new(),
    })
}
