//! The topic of `produce`: created unless it exists.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kmr_cli_support::kafka::unreachable;
use kmr_cli_support::kafka_access::create_client;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer};

use super::args::ProduceArgs;
use super::delivery_reports::DeliveryReports;

/// Timeout of one request, and for a new topic to reach all brokers.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two requests for a new topic.
const PAUSE: Duration = Duration::from_millis(50);
/// Replicas of a new topic: the broker's default.
const BROKER_DEFAULT: TopicReplication<'static> = TopicReplication::Fixed(-1);

/// Creates the topic unless it exists. Returns its number of partitions.
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
        if started.elapsed() > TIMEOUT {
            bail!("topic {:?} was created, but no broker reports it after {TIMEOUT:?}", args.kafka.topic);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// `None`: the topic does not exist. Requests all topics, because a request for one may create it.
async fn partitions(config: &ClientConfig, args: &ProduceArgs) -> anyhow::Result<Option<u64>> {
    let (config, topic, broker) = (config.clone(), args.kafka.topic.clone(), args.kafka.broker.clone());
    let requested = tokio::task::spawn_blocking(move || {
        let context = DeliveryReports::default();
        let client: BaseProducer<DeliveryReports> = create_client(&config, context.clone())?;
        let metadata = client.client().fetch_metadata(None, TIMEOUT).map_err(|error| {
            // The client reports the cause through its events.
            client.poll(Duration::from_millis(100));
            let reason = context.reason().unwrap_or_else(|| error.to_string());
            unreachable(&broker, TIMEOUT, &reason)
        })?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        Ok(found.map(|found| found.partitions().len() as u64).filter(|partitions| *partitions > 0))
    });
    requested.await.context("requesting the topic")?
}

async fn create(config: &ClientConfig, args: &ProduceArgs) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = create_client(config, DefaultClientContext)?;
    let topic = NewTopic::new(&args.kafka.topic, args.partitions, BROKER_DEFAULT);
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let results = admin.create_topics([&topic], &options).await;
    let results = results.with_context(|| format!("creating topic {:?}", args.kafka.topic))?;
    match results.into_iter().next() {
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((name, RDKafkaErrorCode::TopicAuthorizationFailed))) => {
            bail!("no permission to create topic {name:?}; grant CREATE, or create it with another user")
        }
        Some(Err((name, code))) => bail!("creating topic {name:?} failed: {code}"),
    }
}
