//! Asks the cluster: brokers, versions, the topic, the group, what is committed, and what is allowed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::facts::{Access, Answer, GroupFacts, KafkaFacts, PartitionFacts};
use crate::cli::RunArgs;
use crate::kafka_client::{self, Quiet};

/// For one request.
const REQUEST: Duration = Duration::from_secs(10);
/// For the first record, or the end of an empty partition.
const FIRST: Duration = Duration::from_secs(10);

/// For what the client says beside its answers.
const WORDS: Duration = Duration::from_secs(3);

/// Settings of a group's member, which this client is not.
const OF_MEMBERS: [&str; 4] =
    ["group.protocol", "group.instance.id", "partition.assignment.strategy", "group.remote.assignor"];

/// Asks for everything. What has no answer says why.
///
/// # Errors
/// Settings that no client can be made from.
pub(super) async fn gather(args: &RunArgs) -> anyhow::Result<KafkaFacts> {
    let unasked = || "the broker does not answer".to_owned();
    let facts = KafkaFacts {
        address: args.kafka.broker.clone(),
        topic: args.kafka.topic.clone(),
        group: args.group.clone(),
        protocol: args.protocol,
        brokers: Err(unasked()),
        apis: BTreeMap::new(),
        partitions: Err(unasked()),
        may_read: Access::Unknown(unasked()),
        may_commit: Access::Unknown(unasked()),
        group_state: Err(unasked()),
        committed: Err(unasked()),
    };
    let config = config(args)?;
    let asked = tokio::task::spawn_blocking(move || match config.create_with_context(Quiet::default()) {
        Ok(client) => ask(&client, facts),
        Err(error) => KafkaFacts { brokers: Err(error.to_string()), ..facts },
    });
    asked.await.context("the thread that asks Kafka")
}

fn config(args: &RunArgs) -> anyhow::Result<ClientConfig> {
    let mut config = kafka_client::config(&args.kafka, "kmr-demo-doctor")?;
    for name in OF_MEMBERS {
        config.remove(name);
    }
    for (name, value) in [
        ("group.id", args.group.as_str()),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        ("auto.offset.reset", "error"),
        // The only place where librdkafka says what a broker supports.
        ("debug", "feature"),
    ] {
        config.set(name, value);
    }
    config.set_log_level(rdkafka::config::RDKafkaLogLevel::Debug);
    Ok(config)
}

type Client = BaseConsumer<Quiet>;

fn ask(client: &Client, facts: KafkaFacts) -> KafkaFacts {
    let metadata = match client.fetch_metadata(Some(&facts.topic), REQUEST) {
        Ok(metadata) => metadata,
        Err(error) => {
            // The client reports the cause through its events.
            let _ = client.poll(Duration::from_millis(100));
            let reason = client.context().reason().unwrap_or_else(|| error.to_string());
            return KafkaFacts { brokers: Err(reason), ..facts };
        }
    };
    let brokers = metadata.brokers().iter().map(|broker| format!("{}:{}", broker.host(), broker.port()));
    let found = metadata.topics().iter().find(|found| found.name() == facts.topic);
    let mut partitions = partitions(found);
    let seen = is_seen(client);
    let mut committed = seen.clone();
    let mut may_read = Access::Unknown("there is no partition to read".to_owned());
    if let Ok(partitions) = &mut partitions {
        watermarks(client, &facts.topic, partitions);
        committed = committed.and_then(|()| read_committed(client, &facts.topic, partitions));
        may_read = read(client, &facts.topic, partitions);
    } else if found.and_then(MetadataTopic::error).map(RDKafkaErrorCode::from)
        == Some(RDKafkaErrorCode::TopicAuthorizationFailed)
    {
        may_read = Access::Denied;
    }
    let (may_commit, group_state) = match seen {
        Ok(()) => (may_commit(client), group(client, &facts.group)),
        // READ, which committing takes, brings DESCRIBE with it.
        Err(reason) if reason == NOT_ALLOWED => (Access::Denied, Err(reason)),
        Err(reason) => (Access::Unknown(reason.clone()), Err(reason)),
    };
    KafkaFacts {
        brokers: Ok(brokers.collect()),
        apis: apis(client),
        partitions,
        may_read,
        may_commit,
        group_state,
        committed,
        ..facts
    }
}

/// What the broker supports. The client hands its words out when it is polled.
fn apis(client: &Client) -> BTreeMap<String, (i16, i16)> {
    let started = Instant::now();
    while client.context().apis().is_empty() && started.elapsed() < WORDS {
        let _ = client.poll(Duration::from_millis(20));
    }
    client.context().apis()
}

const NOT_ALLOWED: &str = "not allowed to describe the group";

/// Whether the group may be looked at: finding its coordinator takes DESCRIBE.
fn is_seen(client: &Client) -> Answer<()> {
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition(NO_TOPIC, 0);
    let Err(error) = client.committed_offsets(wanted, REQUEST) else { return Ok(()) };
    // The cause comes through another door.
    let started = Instant::now();
    let mut denied = error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed);
    while !denied && started.elapsed() < WORDS {
        if let Some(Err(cause)) = client.poll(Duration::from_millis(20)) {
            denied = cause.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed);
        }
    }
    Err(if denied { NOT_ALLOWED.to_owned() } else { error.to_string() })
}

fn partitions(found: Option<&MetadataTopic>) -> Answer<Vec<PartitionFacts>> {
    let absent = || "it does not exist, or may not be described".to_owned();
    let found = found.ok_or_else(absent)?;
    match found.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            return Err(absent());
        }
        Some(code) => return Err(code.to_string()),
    }
    let facts = |partition: &rdkafka::metadata::MetadataPartition| PartitionFacts {
        id: partition.id(),
        has_leader: partition.leader() >= 0,
        replicas: partition.replicas().len(),
        in_sync: partition.isr().len(),
        ..PartitionFacts::default()
    };
    Ok(found.partitions().iter().map(facts).collect())
}

fn watermarks(client: &Client, topic: &str, partitions: &mut [PartitionFacts]) {
    for partition in partitions.iter_mut().filter(|partition| partition.has_leader) {
        partition.log = client.fetch_watermarks(topic, partition.id, REQUEST).ok();
    }
}

fn read_committed(client: &Client, topic: &str, partitions: &mut [PartitionFacts]) -> Answer<()> {
    let mut wanted = TopicPartitionList::new();
    for partition in &*partitions {
        wanted.add_partition(topic, partition.id);
    }
    // Read at once: a list that outlives its consumer keeps the consumer from closing.
    let list = client.committed_offsets(wanted, REQUEST).map_err(|error| error.to_string())?;
    for element in list.elements() {
        element.error().map_err(|error| error.to_string())?;
        if let Offset::Offset(offset) = element.offset()
            && let Some(partition) =
                partitions.iter_mut().find(|partition| partition.id == element.partition())
        {
            partition.committed = Some(offset);
        }
    }
    Ok(())
}

/// Reads one record, or the end of a partition that has none.
fn read(client: &Client, topic: &str, partitions: &[PartitionFacts]) -> Access {
    let with_log = || partitions.iter().filter_map(|partition| Some((partition.id, partition.log?)));
    let fullest = with_log().max_by_key(|(_, (low, end))| end - low);
    let Some((partition, (low, _))) = fullest else {
        return Access::Unknown("no partition has a leader".to_owned());
    };
    let mut list = TopicPartitionList::new();
    let assigned =
        list.add_partition_offset(topic, partition, Offset::Offset(low)).and_then(|()| client.assign(&list));
    if let Err(error) = assigned {
        return Access::Unknown(error.to_string());
    }
    let started = Instant::now();
    let mut access = Access::Unknown(format!("nothing came within {FIRST:?}"));
    while started.elapsed() < FIRST {
        access = match client.poll(Duration::from_millis(100)) {
            None => continue,
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => Access::Allowed,
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Access::Denied,
                // The group's own, which is asked for elsewhere, and what passes.
                Some(
                    RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::BrokerTransportFailure,
                ) => continue,
                _ => Access::Unknown(error.to_string()),
            },
        };
        break;
    }
    let _ = client.unassign();
    access
}

/// A topic that nobody has: a commit for it is refused whoever asks, but the group's permission is looked at first. Nothing is
/// written by it, and the group does not come to be.
const NO_TOPIC: &str = "kmr-doctor.no-such-topic.5f0c2d6e";

fn may_commit(client: &Client) -> Access {
    let mut list = TopicPartitionList::new();
    if let Err(error) = list.add_partition_offset(NO_TOPIC, 0, Offset::Offset(0)) {
        return Access::Unknown(error.to_string());
    }
    match client.commit(&list, CommitMode::Sync).map_err(|error| error.rdkafka_error_code()) {
        Err(Some(RDKafkaErrorCode::GroupAuthorizationFailed)) => Access::Denied,
        Err(Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::TopicAuthorizationFailed,
        )) => Access::Allowed,
        Err(Some(code)) => Access::Unknown(code.to_string()),
        Ok(()) | Err(None) => Access::Unknown("the broker's answer does not tell".to_owned()),
    }
}

fn group(client: &Client, group: &str) -> Answer<Option<GroupFacts>> {
    let list = client.fetch_group_list(Some(group), REQUEST).map_err(|error| error.to_string())?;
    let found =
        list.groups().iter().find(|found| found.name() == group && found.protocol_type() == "consumer");
    Ok(found.map(|found| GroupFacts {
        state: found.state().to_owned(),
        assignor: found.protocol().to_owned(),
        members: found.members().len(),
    }))
}
