//! The identity of a log: the cluster id and the topic id that offsets belong to.

use std::fmt;
use std::sync::Arc;

/// Maximum length of a cluster id in bytes. Kafka generates ids of 22 bytes.
pub(crate) const MAX_CLUSTER: usize = 512;

/// Distinguishes a topic's log from that of another topic with the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogId {
    pub(crate) cluster: Arc<str>,
    pub(crate) topic: u128,
}

impl LogId {
    /// `None`: the cluster id is empty or too long, or the topic has no id.
    pub(crate) fn new(cluster: &str, topic: u128) -> Option<Self> {
        let fits = !cluster.is_empty() && cluster.len() <= MAX_CLUSTER && topic != 0;
        fits.then(|| Self { cluster: cluster.into(), topic })
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic id {:032x} of cluster {}", self.topic, self.cluster)
    }
}

/// A log as it was when its partition was assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogAt {
    pub(crate) id: LogId,
    /// The time of the assignment, in milliseconds since the Unix epoch.
    pub(crate) millis: i64,
}
