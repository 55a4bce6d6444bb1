//! A function of values as the first map stage.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => amount, //~ is not a map stage on Kafka records | the first map stage takes a Kafka record, this does not
        reduce => Count::<u32>::new(),
    })
}
