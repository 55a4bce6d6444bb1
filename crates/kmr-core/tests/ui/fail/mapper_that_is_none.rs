//! A value that is no mapper.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => 5, //~ `{integer}` is not a map stage on Kafka records | `fn(&Record<'_>) -> Result<T, E>`
        reduce => Count::<Order>::new(),
    })
}
