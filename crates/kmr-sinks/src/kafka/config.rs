//! The client's settings: the user's, kmr's defaults, and those that the delivery promise needs.

use std::collections::BTreeMap;

use kmr_core::ClientConfig;

use super::error::KafkaWriteError;
use super::telemetry;

/// Settings that users cannot change. A message is acknowledged when all in-sync replicas have
/// stored it, and librdkafka's retries do not duplicate it.
const FORCED: &[(&str, &str)] = &[("acks", "all"), ("enable.idempotence", "true")];

/// Other names of the same settings.
const ALIASES: &[(&str, &str)] =
    &[("request.required.acks", "acks"), ("compression.codec", "compression.type")];

/// Settings of consumers only, which are removed when a consumer's configuration is reused.
const CONSUMER_ONLY: &[&str] = &[
    "auto.commit.enable",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "check.crcs",
    "consume.callback.max.messages",
    "coordinator.query.interval.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "offset.store.method",
    "offset.store.path",
    "offset.store.sync.interval.ms",
    "partition.assignment.strategy",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "session.timeout.ms",
];
const CONSUMER_ONLY_PREFIXES: &[&str] = &["fetch.", "group."];

/// Largest message that the client sends: 64 MiB. The limits of broker and topic are lower.
/// Requests stay at `batch.size` (1 MB), so this costs nothing.
const MAX_MESSAGE: &str = "67108864";

/// Memory limit of librdkafka's queue for all batches in flight. A larger batch passes through it
/// gradually. It must exceed one message.
const MAX_QUEUED_KBYTES: usize = 65_536;

/// All settings for the client. With `auto_create`, the brokers may create topics.
pub(super) fn effective(
    config: &ClientConfig,
    auto_create: bool,
) -> Result<BTreeMap<String, String>, KafkaWriteError> {
    let config = &config.resolved().map_err(|error| KafkaWriteError::Config(error.to_string()))?;
    if config.get("bootstrap.servers").is_none_or(|servers| servers.trim().is_empty()) {
        let text = "bootstrap.servers is not set; set it with ClientConfig::set(\"bootstrap.servers\", …)";
        return Err(KafkaWriteError::Config(text.to_owned()));
    }
    if config.get("transactional.id").is_some() {
        let text = "transactional.id is set, but the writer uses no transactions; remove it";
        return Err(KafkaWriteError::Config(text.to_owned()));
    }
    let is_kept = |name: &str| {
        let is_consumers = CONSUMER_ONLY_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        !is_consumers && !CONSUMER_ONLY.contains(&name)
    };
    let mut settings: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in config.iter().filter(|(name, _)| is_kept(name)) {
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
        settings.insert(name.to_owned(), value.to_owned());
    }
    for (name, value) in FORCED {
        let set = settings.insert((*name).to_owned(), (*value).to_owned());
        if let Some(set) = set.filter(|set| set != value && !(*name == "acks" && set == "-1")) {
            telemetry::setting_overridden(name, &set);
        }
    }
    let mut default = |name: &str, value: String| {
        settings.entry(name.to_owned()).or_insert(value);
    };
    // As Kafka's own clients: a key goes to the same partition, whichever client produced it.
    default("partitioner", "murmur2_random".to_owned());
    default("compression.type", "lz4".to_owned());
    default("message.max.bytes", MAX_MESSAGE.to_owned());
    default("allow.auto.create.topics", auto_create.to_string());
    let largest =
        settings.get("message.max.bytes").and_then(|bytes| bytes.parse::<usize>().ok()).unwrap_or(0);
    let queued = MAX_QUEUED_KBYTES.max(largest / 1024 + 1024).to_string();
    settings.entry("queue.buffering.max.kbytes".to_owned()).or_insert(queued);
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ClientConfig {
        ClientConfig::new().set("bootstrap.servers", "b:9092")
    }

    /// librdkafka applies two names of one setting in an order of no meaning.
    #[test]
    fn each_setting_has_one_name() {
        let settings = effective(&config().set("compression.codec", "zstd"), false).unwrap();
        assert_eq!(settings["compression.type"], "zstd");
        assert!(!settings.contains_key("compression.codec"));
    }

    #[test]
    fn a_consumers_settings_can_be_reused_and_the_promise_cannot_be_weakened() {
        let config = config()
            .set("group.id", "g")
            .set("fetch.min.bytes", "1")
            .set("session.timeout.ms", "6000")
            .set("sasl.username", "u")
            .set("request.required.acks", "1")
            .set("enable.idempotence", "false")
            .set("linger.ms", "50");
        let settings = effective(&config, false).unwrap();
        let get = |name: &str| settings.get(name).map(String::as_str);
        assert_eq!((get("group.id"), get("fetch.min.bytes"), get("session.timeout.ms")), (None, None, None));
        assert_eq!((get("acks"), get("enable.idempotence")), (Some("all"), Some("true")));
        assert_eq!((get("sasl.username"), get("linger.ms")), (Some("u"), Some("50")));
        assert_eq!(get("request.required.acks"), None);
        assert_eq!(get("allow.auto.create.topics"), Some("false"));
    }

    #[test]
    fn invalid_settings_are_rejected_by_name() {
        let rejected =
            |config: &ClientConfig| effective(config, false).map(drop).err().map(|error| error.to_string());
        assert!(rejected(&ClientConfig::new()).is_some_and(|text| text.contains("bootstrap.servers")));
        let transactional = config().set("transactional.id", "t");
        assert!(rejected(&transactional).is_some_and(|text| text.contains("transactional.id")));
        assert_eq!(rejected(&config()), None);
    }
}
