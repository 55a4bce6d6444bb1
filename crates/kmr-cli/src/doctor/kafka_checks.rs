//! Judges settings, cluster, topic and group. Pure.

use kmr_core::SettingEffect;

use super::facts::{Access, Facts, KafkaFacts, PartitionFacts};
use super::report::{Check, State};
use crate::cli::Protocol;
use crate::numbers::grouped;

/// One row for each thing that was looked at.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let kafka = &facts.kafka;
    vec![
        settings(facts),
        broker(kafka),
        apis(kafka),
        topic(kafka),
        access("read the topic", &kafka.may_read, format!("grant READ on topic {:?}", kafka.topic)),
        access("commit", &kafka.may_commit, format!("grant READ on group {:?}", kafka.group)),
        group(kafka),
        offsets(kafka),
    ]
}

fn settings(facts: &Facts) -> Check {
    const NAME: &str = "settings";
    if let Some(refused) = &facts.settings.refused {
        return Check::new(NAME, State::Fail, refused, "correct the flag or setting that it names");
    }
    let notes: Vec<String> = facts
        .settings
        .notes
        .iter()
        .map(|note| {
            let what = match note.effect {
                SettingEffect::Replaced => "is not used",
                _ => "is used",
            };
            format!("{}={} {what}: {}", note.name, note.value, note.why)
        })
        .collect();
    match notes[..] {
        [] => Check::ok(NAME, "nothing that breaks an invariant"),
        _ => Check::new(NAME, State::Warn, notes.join("; "), "leave these out of --set"),
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
        Ok(brokers) => Check::ok("broker", format!("{} at {}", brokers.len(), brokers.join(", "))),
    }
}

/// What is shown of a broker's versions.
const SHOWN: [&str; 4] = ["Fetch", "OffsetCommit", "JoinGroup", "ConsumerGroupHeartbeat"];
/// Of Kafka 2.8: topics have ids from there on.
const METADATA_WITH_IDS: i16 = 10;

fn apis(kafka: &KafkaFacts) -> Check {
    const NAME: &str = "API versions";
    if kafka.apis.is_empty() {
        return Check::unknown(NAME, "the broker has not said which it knows");
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
            "a topic that is created again will not be told from the old one",
        );
    }
    Check::ok(NAME, shown)
}

fn topic(kafka: &KafkaFacts) -> Check {
    const NAME: &str = "topic";
    let partitions = match &kafka.partitions {
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
    let (headless, lagging) = (list(|p| !p.has_leader), list(|p| p.in_sync < p.replicas));
    let records: i64 = partitions.iter().filter_map(|p| p.log).map(|(low, end)| end - low).sum();
    let found = format!(
        "{:?}, {} partitions, {} offsets",
        kafka.topic,
        partitions.len(),
        grouped(records.unsigned_abs())
    );
    if !headless.is_empty() {
        let remedy = "bring their brokers back; until then these partitions stand still";
        Check::new(NAME, State::Fail, format!("{found}; no leader: {headless}"), remedy)
    } else if !lagging.is_empty() {
        let found = format!("{found}; replicas out of sync: {lagging}");
        Check::new(NAME, State::Warn, found, "look at the brokers: one more failure may lose records")
    } else {
        Check::ok(NAME, found)
    }
}

pub(super) fn access(name: &'static str, access: &Access, remedy: String) -> Check {
    match access {
        Access::Allowed => Check::ok(name, "allowed"),
        Access::Denied => Check::new(name, State::Fail, "not allowed", remedy),
        Access::Unknown(why) => Check::unknown(name, why),
    }
}

fn group(kafka: &KafkaFacts) -> Check {
    const NAME: &str = "group";
    let name = format!("{:?}", kafka.group);
    let group = match &kafka.group_state {
        Err(reason) => return Check::unknown(NAME, format!("{name}: {reason}")),
        Ok(None) => {
            let found = format!("{name}: no classic group; new, or of KIP-848, which is not shown here");
            return Check::ok(NAME, found);
        }
        Ok(Some(group)) => group,
    };
    let mut found = format!("{name}: {}, {} members", group.state, group.members);
    if !group.assignor.is_empty() {
        found += &format!(", {:?}", group.assignor);
    }
    let (fits, remedy) = match kafka.protocol {
        Protocol::Eager => (group.assignor == "range", "end all members first, or use --protocol as they do"),
        Protocol::Cooperative => (
            group.assignor == "cooperative-sticky",
            "end all members first, or use --protocol as they do: eager and cooperative members do not mix",
        ),
        Protocol::Consumer => (
            group.assignor != "cooperative-sticky",
            "start the new members, then end all old ones: this client cannot move a cooperative-sticky group member by member",
        ),
    };
    if group.members > 0 && !group.assignor.is_empty() && !fits {
        return Check::new(NAME, State::Fail, found, remedy);
    }
    Check::ok(NAME, found)
}

fn offsets(kafka: &KafkaFacts) -> Check {
    const NAME: &str = "committed offsets";
    let partitions = match (&kafka.committed, &kafka.partitions) {
        (Err(reason), _) => return Check::unknown(NAME, reason),
        (_, Err(_)) => return Check::unknown(NAME, "there are no partitions to ask about"),
        (Ok(()), Ok(partitions)) => partitions,
    };
    let name = |p: &PartitionFacts, bound: i64| {
        format!("partition {}: {} of {bound}", p.id, p.committed.unwrap_or_default())
    };
    let (mut below, mut beyond, mut none, mut lag) = (Vec::new(), Vec::new(), 0, 0);
    for p in partitions {
        let Some((low, end)) = p.log else {
            return Check::unknown(NAME, format!("partition {}: no watermarks", p.id));
        };
        match p.committed {
            None => none += 1,
            Some(committed) if committed < low => below.push(name(p, low)),
            Some(committed) if committed > end => beyond.push(name(p, end)),
            Some(_) => {}
        }
        lag += end - p.committed.unwrap_or(low).clamp(low, end);
    }
    let lag = grouped(lag.unsigned_abs());
    if !below.is_empty() {
        let found = format!("below the log's lowest: {}", below.join(", "));
        let remedy = "retention took records that were not read; `run` stops there unless out_of_range says where to go on";
        return Check::new(NAME, State::Fail, found, remedy);
    }
    if !beyond.is_empty() {
        let found = format!("beyond the log's end: {}", beyond.join(", "));
        let remedy = "the topic was created again, or lost records: choose where to start, by another --group or by resetting offsets";
        return Check::new(NAME, State::Fail, found, remedy);
    }
    match none {
        0 => Check::ok(NAME, format!("lag {lag}")),
        none if none == partitions.len() => {
            Check::ok(NAME, format!("none yet: `run` starts at the earliest, {lag} offsets"))
        }
        none => {
            let found = format!("{none} of {} partitions have none; lag {lag}", partitions.len());
            Check::new(NAME, State::Warn, found, "these start at the earliest; were their offsets forgotten?")
        }
    }
}

#[cfg(test)]
mod tests {
    use kmr_core::ClientConfig;

    use super::super::facts::GroupFacts;
    use super::super::judge_clickhouse::tests::facts;
    use super::*;

    /// State and text of one check, after a change to facts that are fine.
    fn judged(name: &str, change: impl FnOnce(&mut Facts)) -> (State, String) {
        let mut facts = facts();
        change(&mut facts);
        let check = checks(&facts).into_iter().find(|check| check.name == name).unwrap();
        (check.state, format!("{} → {}", check.found, check.remedy))
    }

    #[test]
    fn good_facts_are_fine() {
        for check in checks(&facts()) {
            assert_eq!(check.state, State::Ok, "{check:?}");
        }
    }

    #[test]
    fn settings_that_cannot_work_fail_and_risky_ones_warn() {
        let refused = judged("settings", |f| f.settings.refused = Some("drain_deadline is 5s".into()));
        assert!(refused.0 == State::Fail && refused.1.contains("drain_deadline"), "{refused:?}");
        let config = ClientConfig::new().set("enable.auto.commit", "true").set("queued.min.messages", "5");
        let risky = judged("settings", |f| f.settings.notes = config.review());
        assert_eq!(risky.0, State::Warn);
        assert!(risky.1.contains("enable.auto.commit=true is not used"), "{}", risky.1);
        assert!(risky.1.contains("queued.min.messages=5 is used"), "{}", risky.1);
    }

    #[test]
    fn an_unreachable_broker_fails() {
        let (state, text) = judged("broker", |f| f.kafka.brokers = Err("refused".into()));
        assert!(
            state == State::Fail && text.contains("b:9092: refused") && text.contains("--broker"),
            "{text}"
        );
    }

    #[test]
    fn brokers_without_kip_848_fail_it_and_old_ones_warn() {
        let without = |protocol| {
            judged("API versions", |f| {
                f.kafka.protocol = protocol;
                f.kafka.apis.remove("ConsumerGroupHeartbeat");
            })
        };
        assert_eq!(without(Protocol::Consumer).0, State::Fail);
        assert_eq!(without(Protocol::Cooperative).0, State::Ok);
        let old = judged("API versions", |f| f.kafka.apis.extend([("Metadata".to_owned(), (0, 9))]));
        assert_eq!(old.0, State::Warn);
        assert_eq!(judged("API versions", |f| f.kafka.apis.clear()).0, State::Unknown);
    }

    #[test]
    fn topics_that_are_absent_or_unhealthy_are_named() {
        let absent = judged("topic", |f| f.kafka.partitions = Err("it does not exist".into()));
        assert!(absent.0 == State::Fail && absent.1.contains("\"events\": it does not exist"), "{absent:?}");
        let partition = |f: &mut Facts, change: fn(&mut PartitionFacts)| {
            f.kafka.partitions.as_mut().unwrap().iter_mut().for_each(change);
        };
        let headless = judged("topic", |f| partition(f, |p| p.has_leader = p.id != 1));
        assert!(headless.0 == State::Fail && headless.1.contains("no leader: 1"), "{headless:?}");
        let lagging = judged("topic", |f| partition(f, |p| p.replicas = 3));
        assert!(lagging.0 == State::Warn && lagging.1.contains("out of sync: 0, 1"), "{lagging:?}");
    }

    #[test]
    fn missing_permissions_fail() {
        let read = judged("read the topic", |f| f.kafka.may_read = Access::Denied);
        assert!(read.0 == State::Fail && read.1.contains("READ on topic \"events\""), "{read:?}");
        let commit = judged("commit", |f| f.kafka.may_commit = Access::Denied);
        assert!(commit.0 == State::Fail && commit.1.contains("READ on group \"g\""), "{commit:?}");
        let unknown = judged("commit", |f| f.kafka.may_commit = Access::Unknown("no answer".into()));
        assert!(unknown.0 == State::Unknown && unknown.1.contains("no answer"));
    }

    #[test]
    fn groups_with_members_of_another_kind_fail() {
        let with = |protocol, assignor: &str, members| {
            judged("group", |f| {
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
        assert_eq!(judged("group", |f| f.kafka.group_state = Err("denied".into())).0, State::Unknown);
    }

    #[test]
    fn offsets_that_are_not_in_the_log_fail() {
        let with = |committed: [Option<i64>; 2]| {
            judged("committed offsets", |f| {
                let partitions = f.kafka.partitions.as_mut().unwrap().iter_mut();
                partitions.zip(committed).for_each(|(p, committed)| p.committed = committed);
            })
        };
        let below = with([Some(9), Some(10)]);
        assert!(below.0 == State::Fail && below.1.contains("partition 0: 9 of 10"), "{below:?}");
        let beyond = with([Some(20), Some(21)]);
        assert!(beyond.0 == State::Fail && beyond.1.contains("partition 1: 21 of 20"), "{beyond:?}");
        assert!(with([Some(10), Some(20)]).1.contains("lag 10"));
        let (state, text) = with([None, None]);
        assert!(state == State::Ok && text.contains("none yet"), "{text}");
        assert_eq!(with([None, Some(10)]).0, State::Warn);
        assert_eq!(judged("committed offsets", |f| f.kafka.committed = Err("x".into())).0, State::Unknown);
    }
}
