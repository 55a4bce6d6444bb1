//! The Kafka topic that a reducer writes to.

/// A Kafka topic that a reducer writes to: see [`Reducer::target_topics`](super::Reducer).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetTopic {
    topic: String,
    brokers: String,
}

impl TargetTopic {
    /// `topic` at the brokers of `bootstrap.servers`.
    pub fn new(topic: impl Into<String>, bootstrap_servers: impl Into<String>) -> Self {
        Self { topic: topic.into(), brokers: bootstrap_servers.into() }
    }

    /// The name of the topic.
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// Whether one of the brokers is among `bootstrap_servers`. Two lists without a common broker
    /// may be of one cluster all the same.
    pub(crate) fn shares_broker(&self, bootstrap_servers: &str) -> bool {
        let servers =
            |list: &str| list.split(',').map(|server| server.trim().to_ascii_lowercase()).collect::<Vec<_>>();
        let others = servers(bootstrap_servers);
        servers(&self.brokers).iter().any(|server| !server.is_empty() && others.contains(server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_common_broker_is_enough() {
        let target = TargetTopic::new("t", "a:9092, B:9092");
        assert!(target.shares_broker("b:9092,c:9092") && target.shares_broker("a:9092"));
        assert!(!target.shares_broker("a:9093") && !TargetTopic::new("t", "").shares_broker(""));
    }
}
