//! The topic that is produced to: created if it is not there.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer};

use super::receipts::Receipts;
use crate::cli::ProduceArgs;

/// For one request, and for a new topic to be known to all brokers.
const LIMIT: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(50);
/// Replicas of a new topic: as many as the broker's own default.
const BROKER_DEFAULT: TopicReplication<'static> = TopicReplication::Fixed(-1);

/// Number of the topic's partitions, after it was created if necessary.
pub(super) async fn ensure(config: &ClientConfig, args: &ProduceArgs) -> anyhow::Result<u64> {
    if let Some(partitions) = partitions(config, args).await? {
        return Ok(partitions);
    }
    create(config, args).await?;
    let started = Instant::now();
    loop {
        if let Some(partitions) = partitions(config, args).await? {
            return Ok(partitions);
        }
        if started.elapsed() > LIMIT {
            bail!("topic {:?} was created, but no broker knows it after {LIMIT:?}", args.kafka.topic);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// `None`: no such topic. All topics are asked for, because asking for one may create it.
async fn partitions(config: &ClientConfig, args: &ProduceArgs) -> anyhow::Result<Option<u64>> {
    let (config, topic, broker) = (config.clone(), args.kafka.topic.clone(), args.kafka.broker.clone());
    let asked = tokio::task::spawn_blocking(move || {
        let context = Receipts::default();
        let client: BaseProducer<Receipts> =
            config.create_with_context(context.clone()).context("Kafka settings")?;
        let metadata = client.client().fetch_metadata(None, LIMIT).map_err(|error| {
            // The client reports the cause through its events.
            client.poll(Duration::from_millis(100));
            let reason = context.reason().unwrap_or_else(|| error.to_string());
            anyhow!(
                "no broker reachable at {broker} within {LIMIT:?}: {reason}; check --broker and the network"
            )
        })?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        Ok(found.map(|found| found.partitions().len() as u64).filter(|partitions| *partitions > 0))
    });
    asked.await.context("asking for the topic")?
}

async fn create(config: &ClientConfig, args: &ProduceArgs) -> anyhow::Result<()> {
    let admin: AdminClient<_> = config.create().context("Kafka settings")?;
    let topic = NewTopic::new(&args.kafka.topic, args.partitions, BROKER_DEFAULT);
    let options = AdminOptions::new().operation_timeout(Some(LIMIT));
    let results = admin.create_topics([&topic], &options).await;
    let results = results.with_context(|| format!("creating topic {:?}", args.kafka.topic))?;
    match results.into_iter().next() {
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((name, RDKafkaErrorCode::TopicAuthorizationFailed))) => {
            bail!("no permission to create topic {name:?}: grant CREATE, or have it created")
        }
        Some(Err((name, code))) => bail!("creating topic {name:?} failed: {code}"),
    }
}
