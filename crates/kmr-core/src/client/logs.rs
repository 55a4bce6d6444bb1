//! Which logs partitions have, by cluster and topic id: what exactly-once mode ties its marks to, and offsets alone do not say.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rdkafka::consumer::Consumer;

use super::threads::ClientRef;
use super::topic_ids::TopicIds;
use crate::error::Error;
use crate::log_id::{LogAt, LogId};
use crate::record::TopicPartition;

/// One question for the cluster's id, which comes with the metadata.
const CLUSTER: Duration = Duration::from_secs(10);

/// The logs of these partitions, whose topic ids have just been noted.
///
/// # Errors
/// The cluster does not say: it is older than topic ids, or nobody answers.
pub(super) async fn logs(
    client: &ClientRef,
    topic_ids: &TopicIds,
    partitions: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, LogAt>, Error> {
    let cluster = client.call("cluster id", |client| client.client().fetch_cluster_id(CLUSTER)).await?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    let log = |partition: &TopicPartition| {
        let (high, low) = topic_ids.noted(partition)?;
        let topic = u128::from(high.cast_unsigned()) << 64 | u128::from(low.cast_unsigned());
        let id = LogId::new(cluster.as_deref().unwrap_or_default(), topic)?;
        Some((partition.clone(), LogAt { id, millis }))
    };
    let logs: BTreeMap<_, _> = partitions.iter().filter_map(log).collect();
    match partitions.iter().find(|partition| !logs.contains_key(*partition)) {
        None => Ok(logs),
        Some(partition) => Err(Error::Client {
            operation: format!(
                "{partition}: finding out the ids of cluster and topic, which exactly-once mode needs"
            ),
            source: format!(
                "{}; brokers before Kafka 2.8 have no topic ids",
                if cluster.is_some() {
                    "no broker says the topic's id"
                } else {
                    "no broker says the cluster's id"
                }
            )
            .into(),
            retryable: true,
        }),
    }
}
