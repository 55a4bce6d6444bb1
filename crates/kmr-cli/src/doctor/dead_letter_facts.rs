//! Queries the topic for dead letters, and its settings beside those of the source.

use std::time::Duration;

use kmr_cli_support::errors::one_line;
use kmr_cli_support::kafka_access::create_client;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use super::facts::{DeadLetterFacts, Fact, TopicSettings};
use super::subject::Subject;
use crate::kafka_client;

/// Timeout of one request.
const REQUEST: Duration = Duration::from_secs(10);

/// The facts; `None` if the consumer has no such topic.
pub(super) async fn gather(subject: &Subject) -> Option<DeadLetterFacts> {
    let topic = subject.dead_letter_topic.clone()?;
    let client = &subject.client;
    let partitions = partitions(client, &subject.broker, &topic).await;
    let settings = match &partitions {
        Ok(_) => settings(client, &topic, &subject.topic).await,
        Err(reason) => Err(reason.clone()),
    };
    Some(DeadLetterFacts { topic, partitions, settings })
}

/// The number of partitions of a topic that is written to.
pub(super) async fn partitions(client: &ClientConfig, broker: &str, topic: &str) -> Fact<usize> {
    let (config, broker, name) = (client.clone(), broker.to_owned(), topic.to_owned());
    let partitions = tokio::task::spawn_blocking(move || {
        let consumer = kafka_client::consumer(&config)?;
        kafka_client::partitions(&consumer, &broker, &name, REQUEST)
    });
    match partitions.await {
        Ok(found) => found.map(|found| found.len()).map_err(|error| one_line(&error)),
        Err(error) => Err(error.to_string()),
    }
}

async fn settings(client: &ClientConfig, topic: &str, source: &str) -> Fact<(TopicSettings, TopicSettings)> {
    let admin: AdminClient<DefaultClientContext> =
        create_client(client, DefaultClientContext).map_err(|error| one_line(&error))?;
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
