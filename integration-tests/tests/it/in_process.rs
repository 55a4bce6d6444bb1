//! Runs a consumer inside the test's process, for tests of what reaches a mapper or sink, and of
//! errors.

use anyhow::{Context as _, Result};
use integration_tests::{Deadline, Topic, wait_until};
use kmr_core::{ClientConfig, Consumer, ConsumerBuilder, ConsumerHandle, Error, Pipeline, RunReport};
use tokio::task::JoinHandle;

/// A running consumer. Dropping it ends the consumer at once.
pub(crate) struct Running {
    handle: ConsumerHandle,
    task: JoinHandle<Result<RunReport, Error>>,
}

/// A consumer of `topic` with a short commit interval. Pass it to [`run`].
pub(crate) fn consumer(topic: &Topic, group: &str, pipeline: Pipeline) -> ConsumerBuilder<Pipeline> {
    consumer_with(topic, group, pipeline, |config| config)
}

/// As [`consumer`], with further settings of the Kafka client.
pub(crate) fn consumer_with(
    topic: &Topic,
    group: &str,
    pipeline: Pipeline,
    change: impl FnOnce(ClientConfig) -> ClientConfig,
) -> ConsumerBuilder<Pipeline> {
    let config =
        ClientConfig::new().set("bootstrap.servers", topic.kafka().bootstrap()).set("group.id", group);
    Consumer::builder()
        .topics([topic.name()])
        .config(change(config))
        .commit_interval(std::time::Duration::from_millis(100))
        .shutdown_signal(std::future::pending())
        .strategy(pipeline)
}

/// Builds and starts a consumer.
pub(crate) fn run(consumer: ConsumerBuilder<Pipeline>) -> Result<Running> {
    let consumer = consumer.build()?;
    let handle = consumer.handle();
    Ok(Running { handle, task: tokio::spawn(consumer.run()) })
}

impl Running {
    pub(crate) fn handle(&self) -> &ConsumerHandle {
        &self.handle
    }

    /// Waits for a fact while the consumer runs. Fails when the consumer ends before it.
    pub(crate) async fn until(
        &mut self,
        deadline: Deadline,
        what: &str,
        fact: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<()> {
        tokio::select! {
            reached = wait_until(deadline, what, fact) => reached,
            ended = &mut self.task => {
                ended.context("the consumer panicked")?.with_context(|| format!("the consumer ended before: {what}"))?;
                anyhow::bail!("the consumer ended before: {what}")
            }
        }
    }

    /// Waits until the group has committed every record of the topic.
    pub(crate) async fn all_committed(
        &mut self,
        topic: &Topic,
        group: &str,
        deadline: Deadline,
    ) -> Result<()> {
        let committed = async || Ok(topic.lag(group).await? == 0);
        self.until(deadline, "all records are committed", committed).await
    }

    /// Stops the consumer and waits for its orderly end.
    pub(crate) async fn stop(self, deadline: Deadline) -> Result<RunReport> {
        self.handle.stop();
        Ok(self.ended(deadline).await??)
    }

    /// Waits for the end and returns its result.
    pub(crate) async fn ended(mut self, deadline: Deadline) -> Result<Result<RunReport, Error>> {
        deadline.cap("the consumer ends", &mut self.task).await?.context("the consumer panicked")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}
