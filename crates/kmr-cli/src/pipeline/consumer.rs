//! The consumer of a pipeline. It does not connect before it runs.

use kmr_core::{Consumer, ResetPolicy, Watchdog};

use super::client::client_config;
use super::file::{Pipeline, Start};
use super::strategy::strategy;

/// The consumer of `pipeline`.
///
/// # Errors
/// A setting that the consumer rejects.
pub(super) fn consumer(name: &str, pipeline: &Pipeline) -> anyhow::Result<Consumer> {
    let config = client_config(name, &pipeline.source)?;
    let mut builder = Consumer::builder()
        .topics(pipeline.source.topics.iter())
        .config(config.clone())
        .offset_reset_policy(match pipeline.source.start {
            Start::Earliest => ResetPolicy::Earliest,
            Start::Latest => ResetPolicy::Latest,
            Start::Fail => ResetPolicy::Fail,
        })
        .memory_budget(pipeline.memory_budget.0)
        .commit_interval(pipeline.commit_interval.0)
        .drain_timeout(pipeline.drain_timeout.0)
        .connect_timeout(pipeline.start_timeout.0)
        .watchdog(Watchdog::default().with_exit_when_stuck(true));
    if pipeline.exactly_once {
        builder = builder.exactly_once();
    }
    Ok(builder.strategy(strategy(pipeline, config)?).build()?)
}
