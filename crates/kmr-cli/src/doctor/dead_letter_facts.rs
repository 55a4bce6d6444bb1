//! Queries the topic for dead letters, and its settings beside those of the source.

use std::time::Duration;

use kmr_cli_support::errors::one_line;
use kmr_cli_support::ingest::RunArgs;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use super::facts::{DeadLetterFacts, Fact, TopicSettings};
use crate::kafka_client;

/// Timeout of one request.
const REQUEST: Duration = Duration::from_secs(10);

/// The facts; `None` if the flags name no topic.
pub(super) async fn gather(args: &RunArgs) -> Option<DeadLetterFacts> {
    let topic = args.dead_letter_topic.clone()?;
    let client = match kafka_client::config(&args.kafka, "kmr-doctor") {
        Ok(config) => config,
        Err(error) => {
            let reason = one_line(&error);
            return Some(DeadLetterFacts { topic, partitions: Err(reason.clone()), settings: Err(reason) });
        }
    };
    let (config, broker, name) = (client.clone(), args.kafka.broker.clone(), topic.clone());
    let partitions = tokio::task::spawn_blocking(move || {
        let consumer = kafka_client::consumer(&config)?;
        kafka_client::partitions(&consumer, &broker, &name, REQUEST)
    });
    let partitions = match partitions.await {
        Ok(found) => found.map(|found| found.len()).map_err(|error| one_line(&error)),
        Err(error) => Err(error.to_string()),
    };
    let settings = match &partitions {
        Ok(_) => settings(&client, &topic, &args.kafka.topic).await,
        Err(reason) => Err(reason.clone()),
    };
    Some(DeadLetterFacts { topic, partitions, settings })
}

async fn settings(client: &ClientConfig, topic: &str, source: &str) -> Fact<(TopicSettings, TopicSettings)> {
    let admin: AdminClient<DefaultClientContext> = client.create().map_err(|error| error.to_string())?;
    Ok((of_topic(&admin, topic).await?, of_topic(&admin, source).await?))
}

async fn of_topic(admin: &AdminClient<DefaultClientContext>, topic: &str) -> Fact<TopicSettings> {
    let options = AdminOptions::new().request_timeout(Some(REQUEST));
    let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
    let found = described.map_err(|error| error.to_string())?.into_iter().next();
    let resource = found.ok_or_else(|| format!("the broker does not describe {topic:?}"))?;
    let resource = resource.map_err(|code| format!("settings of {topic:?}: {code}"))?;
    Ok(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
}
