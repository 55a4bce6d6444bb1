//! A strategy that was refused is still a strategy to what uses it.

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
