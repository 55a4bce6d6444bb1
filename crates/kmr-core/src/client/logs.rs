//! The identity of the logs of partitions, by cluster id and topic id. Exactly-once mode ties
//! commit metadata to it, because an offset alone does not name its log.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::errors::retryable;
use super::topic_ids::TopicIds;
use crate::error::Error;
use crate::log_id::LogAt;
use crate::record::TopicPartition;

/// The logs of partitions whose topic ids have just been noted.
///
/// # Errors
/// The brokers are older than topic ids, or no broker responds.
pub(super) fn logs(
    topic_ids: &TopicIds,
    partitions: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, LogAt>, Error> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    let log = |partition: &TopicPartition| {
        let id = topic_ids.log_id(partition)?;
        Some((partition.clone(), LogAt { id, millis }))
    };
    let logs: BTreeMap<_, _> = partitions.iter().filter_map(log).collect();
    match partitions.iter().find(|partition| !logs.contains_key(*partition)) {
        None => Ok(logs),
        Some(partition) => {
            let missing = if topic_ids.noted(partition).is_some() { "cluster id" } else { "topic id" };
            Err(retryable(
                format!("{partition}: reading the cluster id and the topic id for exactly-once mode"),
                format!("no broker returned the {missing}; brokers before Kafka 2.8 have no topic ids"),
            ))
        }
    }
}
