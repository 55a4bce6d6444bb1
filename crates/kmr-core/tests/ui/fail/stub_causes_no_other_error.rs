//! Code that uses a rejected strategy still sees a strategy.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub async fn run() -> Result<(), Error> {
    let strategy = processing_strategy!({
        map => parse, //~ no `reduce` stage
    });
    let pipeline: Pipeline = strategy.into_pipeline();
    start_consumer(["topic"], ClientConfig::new(), pipeline).await
}
