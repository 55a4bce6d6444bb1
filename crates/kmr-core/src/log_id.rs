//! Which log an offset belongs to.

use std::fmt;
use std::sync::Arc;

/// Bytes of a cluster id, at most. Kafka generates ids of 22.
pub(crate) const MAX_CLUSTER: usize = 512;

/// What tells a topic's log from another one of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogId {
    pub(crate) cluster: Arc<str>,
    pub(crate) topic: u128,
}

impl LogId {
    /// `None`: the cluster's id is empty, or longer than any.
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

/// A log, as it was when its partition was assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogAt {
    pub(crate) id: LogId,
    /// When that was, in milliseconds since the Unix epoch.
    pub(crate) millis: i64,
}
