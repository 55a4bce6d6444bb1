//! Finds the setting of librdkafka that a misspelt name is close to.

/// Settings that programs set. librdkafka has some hundred more, and returns no list of names.
const NAMES: &[&str] = &[
    "auto.offset.reset",
    "bootstrap.servers",
    "broker.address.family",
    "check.crcs",
    "client.id",
    "client.rack",
    "compression.type",
    "connections.max.idle.ms",
    "enable.auto.commit",
    "enable.ssl.certificate.verification",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.wait.max.ms",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.max.bytes",
    "metadata.max.age.ms",
    "partition.assignment.strategy",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.config",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "session.timeout.ms",
    "socket.keepalive.enable",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "statistics.interval.ms",
    "topic.metadata.refresh.interval.ms",
];

/// The setting that `name` is a slip of, if one is near.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    // Other tools write these names so.
    let written = name.to_lowercase().replace(['_', '-'], ".");
    let distances = NAMES.iter().map(|known| (distance(&written, known), *known));
    let (distance, known) = distances.min()?;
    (distance <= known.len() / 6).then_some(known)
}

/// Edit distance of two texts: insertions, removals and replacements of bytes.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;

    use super::*;

    #[test]
    fn every_name_is_a_setting_of_librdkafka() {
        for name in NAMES {
            let error = ClientConfig::new().set(*name, "").create_native_config().err();
            let text = error.map(|error| format!("{error:?}")).unwrap_or_default();
            assert!(!text.contains("No such configuration property"), "{name}: {text}");
        }
    }

    #[test]
    fn slips_and_other_spellings_are_recognised() {
        for (written, meant) in [
            ("auto.ofset.reset", "auto.offset.reset"),
            ("bootstrap.server", "bootstrap.servers"),
            ("bootstrap_servers", "bootstrap.servers"),
            ("group-id", "group.id"),
        ] {
            assert_eq!(nearest(written), Some(meant), "{written}");
        }
        for far in ["value.deserializer", "url", "topic"] {
            assert_eq!(nearest(far), None, "{far}");
        }
    }
}
