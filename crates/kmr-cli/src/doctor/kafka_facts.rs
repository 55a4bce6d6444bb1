//! Queries Kafka: brokers, API versions, topic, group, committed offsets, permissions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use kmr_cli_support::errors::one_line;
use kmr_cli_support::kafka_access::create_client;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataBroker, MetadataTopic};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::dead_letter_facts;
use super::facts::{Access, Fact, GroupFacts, KafkaFacts, NoCoordinator, PartitionFacts, Scope};
use super::leader_facts::LogClients;
use super::subject::Subject;
use crate::kafka_client::{self, CapturingContext, EVENTS, NoMetadata};

/// Timeout of one request.
const REQUEST: Duration = Duration::from_secs(10);
/// Timeout for the first record, or for the end of an empty partition.
const FIRST_RECORD: Duration = Duration::from_secs(10);

/// Settings of group members; this client is none.
const MEMBER_SETTINGS: [&str; 4] =
    ["group.protocol", "group.instance.id", "partition.assignment.strategy", "group.remote.assignor"];

/// Queries all facts. A fact that is unknown has its reason.
///
/// # Errors
///
/// A fault of kmr: the thread of the queries panicked.
pub(super) async fn gather(subject: &Subject, scope: Scope) -> anyhow::Result<KafkaFacts> {
    let unknown = || "the broker does not respond".to_owned();
    let facts = KafkaFacts {
        address: subject.broker.clone(),
        topic: subject.topic.clone(),
        group: subject.group.clone(),
        protocol: subject.protocol,
        brokers: Err(unknown()),
        all_silent: false,
        coordinator: Err(NoCoordinator::Unknown(unknown())),
        apis: BTreeMap::new(),
        partitions: Err(unknown()),
        may_read: Access::Unknown(unknown()),
        may_commit: Access::Unknown(unknown()),
        group_state: Err(unknown()),
        committed: Err(unknown()),
        dead_letters: match scope {
            Scope::Full => dead_letter_facts::gather(subject).await,
            Scope::StartUp => None,
        },
    };
    let config = config(subject);
    let ends = match scope {
        Scope::Full => Some(config_for_ends(&config)),
        Scope::StartUp => None,
    };
    let queried =
        tokio::task::spawn_blocking(move || match create_client(&config, CapturingContext::default()) {
            Ok(client) => query(&client, ends.as_ref(), facts, scope),
            Err(error) => KafkaFacts { brokers: Err(one_line(&error)), ..facts },
        });
    queried.await.context("the thread that queries Kafka")
}

/// Settings of a client that also sees the offsets of open transactions.
fn config_for_ends(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    config.set("isolation.level", "read_uncommitted").remove("debug");
    config
}

fn config(subject: &Subject) -> ClientConfig {
    let mut config = subject.client.clone();
    for name in MEMBER_SETTINGS {
        config.remove(name);
    }
    for (name, value) in [
        ("group.id", subject.group.as_str()),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        ("auto.offset.reset", "error"),
        // Kafka's log bounds end at the last stable offset.
        ("isolation.level", "read_committed"),
        // They have the address of the group's coordinator.
        ("statistics.interval.ms", "200"),
        // librdkafka reports a broker's API versions only in these log lines.
        ("debug", "feature"),
    ] {
        config.set(name, value);
    }
    config.set_log_level(rdkafka::config::RDKafkaLogLevel::Debug);
    config
}

type Client = BaseConsumer<CapturingContext>;

fn query(client: &Client, ends: Option<&ClientConfig>, facts: KafkaFacts, scope: Scope) -> KafkaFacts {
    let metadata = match kafka_client::metadata(client, Some(&facts.topic), REQUEST) {
        Ok(metadata) => metadata,
        Err(NoMetadata { reason, silent }) if silent.is_empty() => {
            return KafkaFacts { brokers: Err(reason), ..facts };
        }
        Err(NoMetadata { reason, silent }) => {
            let address = Some(kafka_client::addresses(&silent));
            let coordinator = Err(NoCoordinator::NoResponse { address, reason });
            return KafkaFacts { brokers: Ok(silent), all_silent: true, coordinator, ..facts };
        }
    };
    let address = |broker: &MetadataBroker| (broker.id(), format!("{}:{}", broker.host(), broker.port()));
    let brokers = metadata.brokers().iter().map(address).collect();
    let found = metadata.topics().iter().find(|found| found.name() == facts.topic);
    let mut partitions = partitions(found);
    if let Ok(partitions) = &mut partitions {
        let ends = ends.and_then(|ends| kafka_client::consumer(ends).ok());
        LogClients { stable: client, ends: ends.as_ref() }.query(&facts.topic, partitions, REQUEST);
    }
    let coordinator = coordinator(client);
    let facts = KafkaFacts { brokers: Ok(brokers), coordinator, ..facts };
    if scope == Scope::StartUp {
        return KafkaFacts { partitions, ..facts };
    }
    let visible = facts.coordinator.as_ref().copied().map_err(NoCoordinator::to_string);
    let mut committed = visible.clone();
    let mut may_read = Access::Unknown("there is no partition to read".to_owned());
    if let Ok(partitions) = &mut partitions {
        committed = committed.and_then(|()| read_committed(client, &facts.topic, partitions));
        may_read = read_access(client, &facts.topic, partitions);
    } else if found.and_then(MetadataTopic::error).map(RDKafkaErrorCode::from)
        == Some(RDKafkaErrorCode::TopicAuthorizationFailed)
    {
        may_read = Access::Denied;
    }
    let (may_commit, group_state) = match (visible, &facts.coordinator) {
        (Ok(()), _) => (commit_access(client), group(client, &facts.group)),
        // Commits need READ, and READ implies DESCRIBE.
        (Err(reason), Err(NoCoordinator::NotAllowed)) => (Access::Denied, Err(reason)),
        (Err(reason), _) => (Access::Unknown(reason.clone()), Err(reason)),
    };
    KafkaFacts {
        apis: api_versions(client),
        partitions,
        may_read,
        may_commit,
        group_state,
        committed,
        ..facts
    }
}

/// The broker's API versions. The client reports them while it is polled.
fn api_versions(client: &Client) -> BTreeMap<String, (i16, i16)> {
    let started = Instant::now();
    while client.context().apis().is_empty() && started.elapsed() < EVENTS {
        let _ = client.poll(Duration::from_millis(20));
    }
    client.context().apis()
}

/// Whether the coordinator responds. Finding it needs the permission to describe the group.
fn coordinator(client: &Client) -> Result<(), NoCoordinator> {
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition(NO_TOPIC, 0);
    let Err(error) = client.committed_offsets(wanted, REQUEST) else { return Ok(()) };
    // The client reports the cause through its events.
    let started = Instant::now();
    let mut denied = error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed);
    while !denied && started.elapsed() < EVENTS {
        if let Some(Err(cause)) = client.poll(Duration::from_millis(20)) {
            denied = cause.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed);
        }
    }
    if denied {
        return Err(NoCoordinator::NotAllowed);
    }
    let reason = client.context().reason().unwrap_or_else(|| error.to_string());
    Err(NoCoordinator::NoResponse { address: client.context().coordinator(), reason })
}

fn partitions(found: Option<&MetadataTopic>) -> Fact<Vec<PartitionFacts>> {
    let absent = || "it does not exist, or the user may not describe it".to_owned();
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
        leader: Some(partition.leader()).filter(|id| *id >= 0),
        replicas: partition.replicas().len(),
        in_sync: partition.isr().len(),
        ..PartitionFacts::default()
    };
    Ok(found.partitions().iter().map(facts).collect())
}

fn read_committed(client: &Client, topic: &str, partitions: &mut [PartitionFacts]) -> Fact<()> {
    let mut wanted = TopicPartitionList::new();
    for partition in &*partitions {
        wanted.add_partition(topic, partition.id);
    }
    // Read here: a list that outlives its consumer keeps the consumer from closing.
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

/// Reads one record, or the end of an empty partition.
fn read_access(client: &Client, topic: &str, partitions: &[PartitionFacts]) -> Access {
    let with_log = || partitions.iter().filter_map(|partition| Some((partition.id, partition.log?)));
    let fullest = with_log().max_by_key(|(_, (low, end))| end - low);
    let Some((partition, (low, _))) = fullest else {
        return Access::Unknown("no leader of a partition responds".to_owned());
    };
    let mut list = TopicPartitionList::new();
    let assigned =
        list.add_partition_offset(topic, partition, Offset::Offset(low)).and_then(|()| client.assign(&list));
    if let Err(error) = assigned {
        return Access::Unknown(error.to_string());
    }
    let started = Instant::now();
    let mut access = Access::Unknown(format!("no record within {FIRST_RECORD:?}"));
    while started.elapsed() < FIRST_RECORD {
        access = match client.poll(Duration::from_millis(100)) {
            None => continue,
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => Access::Allowed,
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Access::Denied,
                // Errors of the group, which `commit_access` queries, and transient ones.
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

/// A topic that no cluster has. The broker rejects every commit for it, but checks the permission
/// on the group first. Nothing is written, and the group is not created.
const NO_TOPIC: &str = "kmr-doctor.no-such-topic.5f0c2d6e";

fn commit_access(client: &Client) -> Access {
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
        Ok(()) | Err(None) => Access::Unknown("the broker's response does not show it".to_owned()),
    }
}

fn group(client: &Client, group: &str) -> Fact<Option<GroupFacts>> {
    let list = client.fetch_group_list(Some(group), REQUEST).map_err(|error| error.to_string())?;
    let found =
        list.groups().iter().find(|found| found.name() == group && found.protocol_type() == "consumer");
    Ok(found.map(|found| GroupFacts {
        state: found.state().to_owned(),
        assignor: found.protocol().to_owned(),
        members: found.members().len(),
    }))
}
