//! Checks of Kafka: settings, brokers, topic, permissions, group and its offsets. Pure.

use std::collections::BTreeMap;

use kmr_cli_support::ingest::Protocol;
use kmr_cli_support::numbers::grouped;
use kmr_core::WarningKind;

use super::check::{Check, State};
use super::facts::{ClickHouseFacts, Facts, KafkaFacts, NoCoordinator, NoLog, PartitionFacts};
use crate::kafka_client::{ADVERTISED, addresses};

/// The checks that decide whether the consumer starts.
pub(super) fn start_up_checks(facts: &Facts) -> Vec<Check> {
    vec![settings(facts), broker(&facts.kafka), topic(&facts.kafka), coordinator(&facts.kafka)]
}

/// All checks of Kafka.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let kafka = &facts.kafka;
    vec![
        settings(facts),
        broker(kafka),
        apis(kafka),
        topic(kafka),
        coordinator(kafka),
        Check::permission(
            "read the topic",
            &kafka.may_read,
            format!("grant READ on topic {:?}", kafka.topic),
        ),
        Check::permission("commit", &kafka.may_commit, format!("grant READ on group {:?}", kafka.group)),
        group(kafka),
        offsets(kafka, &facts.clickhouse),
        transactions(kafka),
    ]
}

fn settings(facts: &Facts) -> Check {
    const NAME: &str = "settings";
    if let Some(reason) = &facts.settings.rejected {
        return Check::new(NAME, State::Fail, reason, "correct the flag or setting that this names");
    }
    let notes: Vec<String> = facts
        .settings
        .notes
        .iter()
        .map(|note| {
            let effect = match note.effect {
                WarningKind::Replaced => "is not used",
                _ => "is used",
            };
            format!("{}={} {effect}: {}", note.name, note.value, note.why)
        })
        .collect();
    match notes[..] {
        [] => Check::ok(NAME, "none breaks an invariant"),
        _ => Check::new(NAME, State::Warn, notes.join("; "), "remove these from --set"),
    }
}

fn broker(kafka: &KafkaFacts) -> Check {
    match &kafka.brokers {
        Err(reason) => Check::new(
            "broker",
            State::Fail,
            format!("{}: {reason}", kafka.address),
            "check --broker, the network, TLS and the user",
        ),
        Ok(brokers) => Check::ok("broker", format!("{} at {}", brokers.len(), addresses(brokers))),
    }
}

/// The requests whose versions are shown.
const SHOWN: [&str; 4] = ["Fetch", "OffsetCommit", "JoinGroup", "ConsumerGroupHeartbeat"];
/// Version of Kafka 2.8, the first one with topic ids.
const METADATA_WITH_IDS: i16 = 10;

fn apis(kafka: &KafkaFacts) -> Check {
    const NAME: &str = "API versions";
    if kafka.apis.is_empty() {
        return Check::unknown(NAME, "the broker has not reported them");
    }
    let shown = SHOWN.iter().filter_map(|name| {
        let (least, most) = kafka.apis.get(*name)?;
        Some(format!("{name} {least}–{most}"))
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    if kafka.protocol == Protocol::Consumer && !kafka.apis.contains_key("ConsumerGroupHeartbeat") {
        let remedy = "use --protocol cooperative, or Kafka 4.0 and later";
        return Check::new(NAME, State::Fail, format!("no KIP-848 groups: {shown}"), remedy);
    }
    if kafka.apis.get("Metadata").is_none_or(|(_, most)| *most < METADATA_WITH_IDS) {
        let found = format!("older than Kafka 2.8: {shown}");
        return Check::new(
            NAME,
            State::Warn,
            found,
            "upgrade the broker: without topic ids a recreated topic looks like the old one",
        );
    }
    Check::ok(NAME, shown)
}

fn topic(kafka: &KafkaFacts) -> Check {
    const NAME: &str = "topic";
    let partitions = match &kafka.partitions {
        Err(_) if kafka.all_silent => {
            let brokers = kafka.brokers.as_ref().map(addresses).unwrap_or_default();
            let found =
                format!("{:?}: no response from {brokers}, which {} names", kafka.topic, kafka.address);
            return Check::new(NAME, State::Fail, found, ADVERTISED);
        }
        Err(reason) => {
            let remedy = "correct --topic, create it, or grant DESCRIBE and READ";
            return Check::new(NAME, State::Fail, format!("{:?}: {reason}", kafka.topic), remedy);
        }
        Ok(partitions) => partitions,
    };
    let list = |pick: fn(&PartitionFacts) -> bool| {
        let found: Vec<String> = partitions.iter().filter(|p| pick(p)).map(|p| p.id.to_string()).collect();
        found.join(", ")
    };
    let (headless, lagging) = (list(|p| p.leader.is_none()), list(|p| p.in_sync < p.replicas));
    let records: i64 = partitions.iter().filter_map(|p| p.log).map(|(low, end)| end - low).sum();
    let found = format!(
        "{:?}, {} partitions, {} offsets",
        kafka.topic,
        partitions.len(),
        grouped(records.unsigned_abs())
    );
    if !headless.is_empty() {
        let remedy = "restore their brokers; until then these partitions are stuck";
        Check::new(NAME, State::Fail, format!("{found}; no leader: {headless}"), remedy)
    } else if let Some(silent) = silent_leaders(kafka, partitions) {
        Check::new(NAME, State::Fail, format!("{found}; {silent}"), ADVERTISED)
    } else if let Some((id, reason)) = rejected(partitions) {
        Check::unknown(NAME, format!("{found}; partition {id}: its log is unknown: {reason}"))
    } else if !lagging.is_empty() {
        let found = format!("{found}; replicas out of sync: {lagging}");
        Check::new(NAME, State::Warn, found, "check the brokers: one more failure may lose records")
    } else {
        Check::ok(NAME, found)
    }
}

/// The leaders that do not respond, with the addresses that they advertise and their partitions.
fn silent_leaders(kafka: &KafkaFacts, partitions: &[PartitionFacts]) -> Option<String> {
    let mut silent = BTreeMap::<i32, Vec<String>>::new();
    for partition in partitions.iter().filter(|partition| partition.no_log == Some(NoLog::NoResponse)) {
        silent.entry(partition.leader?).or_default().push(partition.id.to_string());
    }
    let name = |(id, partitions): (i32, Vec<String>)| {
        let address = kafka.brokers.as_ref().ok().and_then(|brokers| brokers.get(&id));
        let address = address.map_or("an unknown address", String::as_str);
        format!("no response from {address} (broker {id}), the leader of {}", partitions.join(", "))
    };
    let names: Vec<String> = silent.into_iter().map(name).collect();
    (!names.is_empty()).then(|| names.join("; "))
}

/// The first partition whose leader responded with an error.
fn rejected(partitions: &[PartitionFacts]) -> Option<(i32, &str)> {
    partitions.iter().find_map(|partition| match &partition.no_log {
        Some(NoLog::Rejected(reason)) => Some((partition.id, reason.as_str())),
        _ => None,
    })
}

fn coordinator(kafka: &KafkaFacts) -> Check {
    const NAME: &str = "group coordinator";
    let name = format!("{:?}", kafka.group);
    let Err(reason) = &kafka.coordinator else { return Check::ok(NAME, format!("{name}: it responds")) };
    let found = format!("{name}: {reason}");
    match reason {
        NoCoordinator::Unknown(_) => Check::unknown(NAME, found),
        NoCoordinator::NotAllowed => {
            Check::new(NAME, State::Fail, found, format!("grant READ on group {name}"))
        }
        NoCoordinator::NoResponse { address: Some(_), .. } => {
            Check::new(NAME, State::Fail, found, ADVERTISED)
        }
        NoCoordinator::NoResponse { address: None, .. } => {
            let remedy = "check that the partitions of __consumer_offsets have leaders";
            Check::new(NAME, State::Fail, found, remedy)
        }
    }
}

fn group(kafka: &KafkaFacts) -> Check {
    const NAME: &str = "group";
    let name = format!("{:?}", kafka.group);
    let group = match &kafka.group_state {
        Err(reason) => return Check::unknown(NAME, format!("{name}: {reason}")),
        Ok(None) => {
            let found =
                format!("{name}: no classic group; it is new, or a KIP-848 group, which is not shown here");
            return Check::ok(NAME, found);
        }
        Ok(Some(group)) => group,
    };
    let mut found = format!("{name}: {}, {} members", group.state, group.members);
    if !group.assignor.is_empty() {
        found += &format!(", {:?}", group.assignor);
    }
    let (fits, remedy) = match kafka.protocol {
        Protocol::Eager => (group.assignor == "range", "stop all members first, or use their --protocol"),
        Protocol::Cooperative => (
            group.assignor == "cooperative-sticky",
            "stop all members first, or use their --protocol: eager and cooperative members do not mix",
        ),
        Protocol::Consumer => (
            group.assignor != "cooperative-sticky",
            "start the new members, then stop all old ones: this client cannot migrate a cooperative-sticky group member by member",
        ),
    };
    if group.members > 0 && !group.assignor.is_empty() && !fits {
        return Check::new(NAME, State::Fail, found, remedy);
    }
    Check::ok(NAME, found)
}

fn offsets(kafka: &KafkaFacts, table: &ClickHouseFacts) -> Check {
    const NAME: &str = "committed offsets";
    let partitions = match (&kafka.committed, &kafka.partitions) {
        (Err(reason), _) => return Check::unknown(NAME, reason),
        (_, Err(_)) => return Check::unknown(NAME, "there are no partitions"),
        (Ok(()), Ok(partitions)) => partitions,
    };
    let name = |p: &PartitionFacts, bound: i64| {
        format!("partition {}: {} of {bound}", p.id, p.committed.unwrap_or_default())
    };
    let (mut below, mut beyond, mut none, mut lag) = (Vec::new(), Vec::new(), 0, 0);
    for p in partitions {
        let Some((low, end)) = p.log else {
            return Check::unknown(NAME, format!("partition {}: the bounds of its log are unknown", p.id));
        };
        match p.committed {
            None => none += 1,
            Some(committed) if committed < low => below.push(name(p, low)),
            Some(committed) if committed > end => beyond.push(name(p, end)),
            Some(_) => {}
        }
        lag += end - p.committed.unwrap_or(low).clamp(low, end);
    }
    let (is_empty, lag) = (lag == 0, grouped(lag.unsigned_abs()));
    if !below.is_empty() {
        let found = format!("below the log's start: {}", below.join(", "));
        let remedy = "retention deleted unread records: the consumer stops there unless out_of_range_policy is set; reset the \
                      offsets (`kmr offsets reset`) once it is clear what was lost";
        return Check::new(NAME, State::Fail, found, remedy);
    }
    if !beyond.is_empty() {
        let found = format!("after the log's end: {}", beyond.join(", "));
        let remedy = "the topic was recreated, or lost records: choose where to start, with another --group or `kmr offsets reset`";
        return Check::new(NAME, State::Fail, found, remedy);
    }
    match none {
        0 => Check::ok(NAME, format!("lag {lag}")),
        none if none == partitions.len() => {
            let found = format!("none yet: the consumer starts at the earliest, {lag} offsets");
            match table.has_rows() && !is_empty {
                true => Check::new(
                    NAME,
                    State::Warn,
                    format!("{found}, and {} has rows", table.table),
                    "if the group had offsets, they expired or were deleted: records whose rows are stored are inserted again, also in \
                     exactly-once mode; then set the offsets with `kmr offsets reset` first",
                ),
                false => Check::ok(NAME, found),
            }
        }
        none => {
            let found = format!("{none} of {} partitions have none; lag {lag}", partitions.len());
            Check::new(NAME, State::Warn, found, "these start at the earliest; have their offsets expired?")
        }
    }
}

/// Offsets that wait for the end of an open transaction. A consumer does not get past the first
/// one.
fn transactions(kafka: &KafkaFacts) -> Check {
    const NAME: &str = "open transactions";
    let Ok(partitions) = &kafka.partitions else {
        return Check::unknown(NAME, "there are no partitions");
    };
    let mut open = Vec::new();
    for partition in partitions.iter().filter(|partition| partition.leader.is_some()) {
        let (Some((_, stable)), Some(end)) = (partition.log, partition.end) else {
            return Check::unknown(NAME, format!("partition {}: no end offsets", partition.id));
        };
        if end > stable {
            let behind = grouped((end - stable).unsigned_abs());
            open.push(format!("partition {}: {behind} offsets wait from {stable} on", partition.id));
        }
    }
    match open[..] {
        [] => Check::ok(NAME, "none"),
        _ => Check::new(
            NAME,
            State::Warn,
            open.join("; "),
            "no lag shows them, and the consumer waits; if a producer has died, end its transaction: kafka-transactions.sh \
             find-hanging and abort",
        ),
    }
}

#[cfg(test)]
mod tests {
    use kmr_core::ClientConfig;

    use super::super::facts::{Access, GroupFacts};
    use super::super::sample_facts::facts;
    use super::*;

    /// State and text of one check, after a change of the sample facts.
    fn checked(name: &str, change: impl FnOnce(&mut Facts)) -> (State, String) {
        let mut facts = facts();
        change(&mut facts);
        let check = checks(&facts).into_iter().find(|check| check.name == name).unwrap();
        (check.state, format!("{} → {}", check.found, check.remedy))
    }

    #[test]
    fn sample_facts_pass() {
        for check in checks(&facts()) {
            assert_eq!(check.state, State::Ok, "{check:?}");
        }
    }

    #[test]
    fn rejected_settings_fail_and_risky_ones_warn() {
        let rejected = checked("settings", |f| f.settings.rejected = Some("drain_timeout is 5s".into()));
        assert!(rejected.0 == State::Fail && rejected.1.contains("drain_timeout"), "{rejected:?}");
        let config = ClientConfig::new().set("enable.auto.commit", "true").set("queued.min.messages", "5");
        let risky = checked("settings", |f| f.settings.notes = config.lint());
        assert_eq!(risky.0, State::Warn);
        assert!(risky.1.contains("enable.auto.commit=true is not used"), "{}", risky.1);
        assert!(risky.1.contains("queued.min.messages=5 is used"), "{}", risky.1);
    }

    #[test]
    fn an_unreachable_broker_fails() {
        let (state, text) = checked("broker", |f| f.kafka.brokers = Err("closed".into()));
        assert!(
            state == State::Fail && text.contains("b:9092: closed") && text.contains("--broker"),
            "{text}"
        );
    }

    #[test]
    fn brokers_without_kip_848_fail_and_old_brokers_warn() {
        let without = |protocol| {
            checked("API versions", |f| {
                f.kafka.protocol = protocol;
                f.kafka.apis.remove("ConsumerGroupHeartbeat");
            })
        };
        assert_eq!(without(Protocol::Consumer).0, State::Fail);
        assert_eq!(without(Protocol::Cooperative).0, State::Ok);
        let old = checked("API versions", |f| f.kafka.apis.extend([("Metadata".to_owned(), (0, 9))]));
        assert_eq!(old.0, State::Warn);
        assert_eq!(checked("API versions", |f| f.kafka.apis.clear()).0, State::Unknown);
    }

    #[test]
    fn absent_and_unhealthy_topics_are_named() {
        let absent = checked("topic", |f| f.kafka.partitions = Err("it does not exist".into()));
        assert!(absent.0 == State::Fail && absent.1.contains("\"events\": it does not exist"), "{absent:?}");
        let partition = |f: &mut Facts, change: fn(&mut PartitionFacts)| {
            f.kafka.partitions.as_mut().unwrap().iter_mut().for_each(change);
        };
        let headless = checked("topic", |f| partition(f, |p| p.leader = Some(1).filter(|_| p.id != 1)));
        assert!(headless.0 == State::Fail && headless.1.contains("no leader: 1"), "{headless:?}");
        let lagging = checked("topic", |f| partition(f, |p| p.replicas = 3));
        assert!(lagging.0 == State::Warn && lagging.1.contains("out of sync: 0, 1"), "{lagging:?}");
    }

    #[test]
    fn leaders_that_do_not_respond_fail_with_their_address() {
        let with = |no_log: fn(i32) -> Option<NoLog>| {
            checked("topic", |f| {
                for partition in f.kafka.partitions.as_mut().unwrap() {
                    partition.leader = Some(partition.id + 1);
                    partition.no_log = no_log(partition.id);
                    if partition.no_log.is_some() {
                        (partition.log, partition.end) = (None, None);
                    }
                }
            })
        };
        let (state, text) = with(|id| (id == 1).then_some(NoLog::NoResponse));
        assert!(state == State::Fail && text.contains("d:9092 (broker 2), the leader of 1 →"), "{text}");
        assert!(text.contains("advertised.listeners") && !text.contains("b:9092"), "{text}");
        let (state, text) = with(|_| Some(NoLog::NoResponse));
        assert!(state == State::Fail && text.contains("(broker 1), the leader of 0; no response"), "{text}");
        let (state, text) = with(|id| (id == 1).then(|| NoLog::Rejected("storage".into())));
        assert!(
            state == State::Unknown && text.contains("partition 1") && text.contains("storage"),
            "{text}"
        );
    }

    #[test]
    fn a_coordinator_that_does_not_respond_fails_with_its_address() {
        let with = |reason| checked("group coordinator", |f| f.kafka.coordinator = Err(reason));
        let silent = |address: Option<&str>| NoCoordinator::NoResponse {
            address: address.map(str::to_owned),
            reason: "timed out".into(),
        };
        let (state, text) = with(silent(Some("d:9092")));
        assert!(
            state == State::Fail && text.contains("d:9092") && text.contains("advertised.list"),
            "{text}"
        );
        let (state, text) = with(silent(None));
        assert!(state == State::Fail && text.contains("__consumer_offsets"), "{text}");
        let (state, text) = with(NoCoordinator::NotAllowed);
        assert!(state == State::Fail && text.contains("READ on group \"g\""), "{text}");
        assert_eq!(with(NoCoordinator::Unknown("no broker".into())).0, State::Unknown);
    }

    #[test]
    fn missing_permissions_fail() {
        let read = checked("read the topic", |f| f.kafka.may_read = Access::Denied);
        assert!(read.0 == State::Fail && read.1.contains("READ on topic \"events\""), "{read:?}");
        let commit = checked("commit", |f| f.kafka.may_commit = Access::Denied);
        assert!(commit.0 == State::Fail && commit.1.contains("READ on group \"g\""), "{commit:?}");
        let unknown = checked("commit", |f| f.kafka.may_commit = Access::Unknown("no answer".into()));
        assert!(unknown.0 == State::Unknown && unknown.1.contains("no answer"));
    }

    #[test]
    fn groups_with_members_of_another_protocol_fail() {
        let with = |protocol, assignor: &str, members| {
            checked("group", |f| {
                let assignor = assignor.to_owned();
                f.kafka.group_state = Ok(Some(GroupFacts { state: "Stable".into(), assignor, members }));
                f.kafka.protocol = protocol;
            })
        };
        for (protocol, assignor, members, expected) in [
            (Protocol::Cooperative, "cooperative-sticky", 2, State::Ok),
            (Protocol::Cooperative, "range", 2, State::Fail),
            (Protocol::Cooperative, "range", 0, State::Ok),
            (Protocol::Eager, "cooperative-sticky", 1, State::Fail),
            (Protocol::Consumer, "cooperative-sticky", 1, State::Fail),
            (Protocol::Consumer, "range", 1, State::Ok),
        ] {
            let (state, text) = with(protocol, assignor, members);
            assert_eq!(state, expected, "{protocol:?}: {text}");
        }
        assert_eq!(checked("group", |f| f.kafka.group_state = Err("denied".into())).0, State::Unknown);
    }

    #[test]
    fn open_transactions_are_named_with_the_offsets_that_wait() {
        let with = |end| {
            checked("open transactions", |f| {
                f.kafka.partitions.as_mut().unwrap()[1].end = end;
            })
        };
        let (state, text) = with(Some(1_030));
        assert!(
            state == State::Warn && text.contains("partition 1: 1,010 offsets wait from 20 on"),
            "{text}"
        );
        assert_eq!(with(Some(20)).0, State::Ok);
        // A record that came between the two queries.
        assert_eq!(with(Some(19)).0, State::Ok);
        assert_eq!(with(None).0, State::Unknown);
        assert_eq!(checked("open transactions", |f| f.kafka.partitions = Err("x".into())).0, State::Unknown);
    }

    #[test]
    fn offsets_outside_of_the_log_fail() {
        let with = |committed: [Option<i64>; 2]| {
            checked("committed offsets", |f| {
                let partitions = f.kafka.partitions.as_mut().unwrap().iter_mut();
                partitions.zip(committed).for_each(|(p, committed)| p.committed = committed);
            })
        };
        let below = with([Some(9), Some(10)]);
        assert!(below.0 == State::Fail && below.1.contains("partition 0: 9 of 10"), "{below:?}");
        let beyond = with([Some(20), Some(21)]);
        assert!(beyond.0 == State::Fail && beyond.1.contains("partition 1: 21 of 20"), "{beyond:?}");
        assert!(with([Some(10), Some(20)]).1.contains("lag 10"));
        let none = |rows: bool, is_empty: bool| {
            checked("committed offsets", |f| {
                for partition in f.kafka.partitions.as_mut().unwrap() {
                    partition.committed = None;
                    partition.log = if is_empty { Some((20, 20)) } else { partition.log };
                }
                f.clickhouse.tables.as_mut().unwrap()[0].parts = u64::from(rows);
            })
        };
        for (rows, is_empty) in [(false, false), (true, true)] {
            let (state, text) = none(rows, is_empty);
            assert!(state == State::Ok && text.contains("none yet"), "{text}");
        }
        let (state, text) = none(true, false);
        assert!(state == State::Warn && text.contains("db.t has rows") && text.contains("expired"), "{text}");
        assert_eq!(with([None, Some(10)]).0, State::Warn);
        assert_eq!(checked("committed offsets", |f| f.kafka.committed = Err("x".into())).0, State::Unknown);
    }
}
