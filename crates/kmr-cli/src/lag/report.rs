//! A group's lag as text and as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use kmr_cli_support::numbers::{counted, grouped};
use kmr_cli_support::table;
use kmr_core::__private::{GroupDescription, GroupMember};
use serde_json::{Value, json};

use super::facts::{GroupLag, PartitionLag};
use crate::terminal::{escaped, shortened};

/// Columns for a client id beside its member's number, so that a table fits into 80.
const CLIENT_ID: usize = 16;

impl GroupLag {
    /// 0, or 3 if something is not known.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.is_complete() { 0 } else { 3 })
    }

    fn is_complete(&self) -> bool {
        self.description.is_ok()
            && self.unknown_topics.is_empty()
            && self.partitions.values().all(|one| one.problem.is_none())
    }

    fn topics(&self) -> BTreeSet<&str> {
        self.partitions.keys().map(|(topic, _)| topic.as_str()).collect()
    }

    fn of<'l>(&'l self, topic: &'l str) -> impl Iterator<Item = (i32, &'l PartitionLag)> {
        let of_topic = self.partitions.iter().filter(move |((name, _), _)| name == topic);
        of_topic.map(|((_, partition), one)| (*partition, one))
    }

    fn total(&self) -> u64 {
        self.partitions.values().filter_map(PartitionLag::lag).sum()
    }

    fn members(&self) -> &[GroupMember] {
        self.description.as_ref().map_or(&[], |group| &group.members)
    }

    /// For people. `coloured`: for a terminal.
    pub(super) fn text(&self, coloured: bool) -> String {
        let mut lines = vec![self.headline(coloured)];
        for (number, member) in self.members().iter().enumerate() {
            lines.push(member_line(number + 1, member));
        }
        for topic in self.topics() {
            // A topic that cannot be read has a note.
            if !self.unknown_topics.contains_key(topic) {
                lines.push(format!("topic {topic:?}"));
                lines.push(self.table(topic));
            }
        }
        lines.extend(self.notes().into_iter().map(|note| format!("note: {note}")));
        lines.push(self.last_line());
        lines.join("\n")
    }

    fn headline(&self, coloured: bool) -> String {
        let group = escaped(self.group.as_bytes());
        match &self.description {
            Err(why) => format!("group \"{group}\": its members are unknown: {why}"),
            Ok(found) => {
                let protocol = if found.is_consumer_protocol { "consumer" } else { "classic" };
                let assignor = match found.assignor.as_str() {
                    "" => String::new(),
                    assignor => format!(", assignor {assignor}"),
                };
                let members = match found.members.len() {
                    0 => "no members".to_owned(),
                    some => counted(some as u64, "member"),
                };
                let state = if coloured { coloured_state(found) } else { state(found).to_owned() };
                format!("group \"{group}\": {state}, {protocol} protocol{assignor}, {members}")
            }
        }
    }

    fn table(&self, topic: &str) -> String {
        let mut table = table::with_header(["partition", "committed", "log", "lag", "owner"]);
        let mut total = 0;
        for (partition, one) in self.of(topic) {
            total += one.lag().unwrap_or(0);
            let number = |offset: Option<i64>| offset.map(|offset| grouped(offset.unsigned_abs()));
            let unknown = || "?".to_owned();
            let committed = match (one.committed, &one.problem) {
                (None, Some(_)) if one.end.is_none() => unknown(),
                (committed, _) => number(committed).unwrap_or_else(|| "none".to_owned()),
            };
            let log = match (number(one.start), number(one.end)) {
                (Some(start), Some(end)) => format!("{start}–{end}"),
                _ => unknown(),
            };
            let lag = match (one.lag(), one.committed) {
                (Some(lag), _) => grouped(lag),
                (None, None) => "–".to_owned(),
                (None, Some(_)) => unknown(),
            };
            let owner = self.owner(one).map_or_else(
                || "–".to_owned(),
                |(number, member)| {
                    let client = escaped(member.client_id.as_bytes());
                    format!("{number} {}", shortened(&client, CLIENT_ID))
                },
            );
            table.add_row(table::texts([partition.to_string(), committed, log, lag, owner]));
        }
        let empty = String::new;
        table.add_row(table::texts(["all".to_owned(), empty(), empty(), grouped(total), empty()]));
        table.to_string()
    }

    /// The number of a partition's owner, counted from 1, and the owner.
    fn owner(&self, one: &PartitionLag) -> Option<(usize, &GroupMember)> {
        let at = one.owner?;
        self.members().get(at).map(|member| (at + 1, member))
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (topic, why) in &self.unknown_topics {
            notes.push(format!("topic {topic:?}: {why}"));
        }
        let mut uncommitted: BTreeMap<&str, u64> = BTreeMap::new();
        let known = |topic: &str| !self.unknown_topics.contains_key(topic);
        for ((topic, partition), one) in self.partitions.iter().filter(|((topic, _), _)| known(topic)) {
            let mut add = |text: String| notes.push(format!("{topic}/{partition}: {text}"));
            if let Some(why) = &one.problem {
                add(why.clone());
            }
            if let Some(held) = one.held_back() {
                add(format!(
                    "{} from {} on are held back by an open transaction: no consumer reads them before it ends",
                    counted((held.end - held.start).unsigned_abs(), "offset"),
                    held.start
                ));
            }
            match (one.committed, one.start, one.end) {
                (Some(committed), Some(start), _) if committed < start => add(format!(
                    "{} offsets after the committed one are no longer in the log: retention has deleted them",
                    grouped((start - committed).unsigned_abs())
                )),
                (Some(committed), _, Some(end)) if committed > end => add(format!(
                    "{committed} is committed, and the log ends at {end}; was the topic recreated?"
                )),
                _ => {}
            }
            if one.committed.is_none() && one.problem.is_none() {
                *uncommitted.entry(topic).or_default() += 1;
            }
        }
        for (topic, count) in uncommitted {
            notes.push(format!(
                "topic {topic:?}: {} without a committed offset: a consumer starts there by its own settings, \
                 and they count as no lag",
                counted(count, "partition")
            ));
        }
        if self.partitions.is_empty() && self.unknown_topics.is_empty() {
            notes.push("the group has no committed offsets, and its members have no partitions".to_owned());
        }
        notes
    }

    fn last_line(&self) -> String {
        let (partitions, topics) = (self.partitions.len(), self.topics().len());
        let complete = if self.is_complete() { "" } else { ", without what is unknown" };
        format!(
            "lag {} in {} of {}{complete}",
            grouped(self.total()),
            counted(partitions as u64, "partition"),
            counted(topics as u64, "topic")
        )
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let member = |member: &GroupMember| {
            json!({
                "member_id": member.member_id,
                "instance_id": member.instance_id,
                "client_id": member.client_id,
                "host": member.host,
                "partitions": member.partitions.len(),
            })
        };
        let partition = |((topic, partition), one): (&(String, i32), &PartitionLag)| {
            json!({
                "topic": topic,
                "partition": partition,
                "committed": one.committed,
                "log_start": one.start,
                "log_end": one.end,
                "last_stable_offset": one.stable,
                "lag": one.lag(),
                "held_back_by_transactions": one.held_back().map_or(0, |held| held.end - held.start),
                "owner": self.owner(one).map(|(_, member)| &member.member_id),
                "problem": one.problem,
            })
        };
        let found = self.description.as_ref();
        json!({
            "group": self.group,
            "state": found.ok().map(state),
            "protocol": found.ok().map(|group| if group.is_consumer_protocol { "consumer" } else { "classic" }),
            "assignor": found.ok().map(|group| &group.assignor),
            "complete": self.is_complete(),
            "lag": self.total(),
            "members": found.ok().map(|group| group.members.iter().map(member).collect::<Vec<_>>()),
            "partitions": self.partitions.iter().map(partition).collect::<Vec<_>>(),
            "unknown_topics": self.unknown_topics,
            "notes": self.notes(),
        })
    }
}

/// The state by Kafka's name. librdkafka has no names for two states of KIP-848.
fn state(group: &GroupDescription) -> &str {
    match group.state.as_str() {
        "Unknown" if group.is_consumer_protocol => "Assigning or Reconciling",
        state => state,
    }
}

fn coloured_state(group: &GroupDescription) -> String {
    let state = state(group);
    let style = console::style(state);
    match state {
        "Stable" => style.green(),
        "Empty" | "Dead" => style.yellow(),
        _ => style.magenta(),
    }
    .to_string()
}

fn member_line(number: usize, member: &GroupMember) -> String {
    let text = |text: &str| escaped(text.as_bytes());
    let instance = member.instance_id.as_deref().map(|id| format!(", instance id {}", text(id)));
    format!(
        "member {number}: {} at {}, {}{}\n    member id {}",
        text(&member.client_id),
        text(member.host.trim_start_matches('/')),
        counted(member.partitions.len() as u64, "partition"),
        instance.unwrap_or_default(),
        text(&member.member_id)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag() -> GroupLag {
        let member = GroupMember {
            member_id: "events-1-7f".to_owned(),
            instance_id: Some("first".to_owned()),
            client_id: "events-to-clickhouse".to_owned(),
            host: "/10.0.0.1".to_owned(),
            partitions: vec![("events".to_owned(), 0), ("events".to_owned(), 1)],
        };
        let description = GroupDescription {
            state: "Stable".to_owned(),
            is_consumer_protocol: true,
            assignor: "uniform".to_owned(),
            members: vec![member],
        };
        let one = |committed, start, end, stable| PartitionLag {
            committed,
            start: Some(start),
            end: Some(end),
            stable: Some(stable),
            owner: Some(0),
            problem: None,
        };
        let partitions = [
            (("events".to_owned(), 0), one(Some(1_500), 0, 200_000, 200_000)),
            (("events".to_owned(), 1), one(None, 0, 10, 10)),
        ];
        GroupLag {
            group: "g".to_owned(),
            description: Ok(description),
            partitions: partitions.into(),
            unknown_topics: BTreeMap::new(),
        }
    }

    fn with(change: impl FnOnce(&mut GroupLag)) -> GroupLag {
        let mut changed = lag();
        change(&mut changed);
        changed
    }

    #[test]
    fn the_text_names_group_members_partitions_and_total() {
        let text = lag().text(false);
        assert!(
            text.starts_with("group \"g\": Stable, consumer protocol, assignor uniform, 1 member\n"),
            "{text}"
        );
        assert!(
            text.contains("member 1: events-to-clickhouse at 10.0.0.1, 2 partitions, instance id first"),
            "{text}"
        );
        assert!(
            text.contains("│         0 ┆     1,500 ┆ 0–200,000 ┆ 198,500 ┆ 1 events-to-click… │"),
            "{text}"
        );
        assert!(text.ends_with("lag 198,500 in 2 partitions of 1 topic"), "{text}");
        assert!(text.lines().all(|line| line.starts_with("note") || line.chars().count() <= 80), "{text}");
        assert!(lag().is_complete());
    }

    #[test]
    fn a_partition_without_a_committed_offset_is_named_and_has_no_lag() {
        let text = lag().text(false);
        assert!(text.contains("│         1 ┆      none ┆      0–10 ┆       – ┆"), "{text}");
        assert!(text.contains("1 partition without a committed offset"), "{text}");
        assert!(!text.contains("┆ -1") && !text.contains(" -1001"), "{text}");
        let json = lag().json();
        assert_eq!(
            (&json["partitions"][1]["committed"], &json["partitions"][1]["lag"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!((json["lag"].as_u64(), json["complete"].as_bool()), (Some(198_500), Some(true)));
        assert_eq!(json["partitions"][0]["owner"], "events-1-7f");
    }

    fn first(lag: &mut GroupLag) -> &mut PartitionLag {
        lag.partitions.values_mut().next().unwrap()
    }

    #[test]
    fn what_no_consumer_can_read_is_named() {
        let open = with(|lag| first(lag).stable = Some(199_000));
        let text = open.text(false);
        assert!(text.contains("events/0: 1,000 offsets from 199000 on are held back"), "{text}");
        assert_eq!(open.json()["partitions"][0]["held_back_by_transactions"], 1_000);
        assert_eq!(open.total(), 198_500, "they count as lag");

        let deleted = with(|lag| first(lag).start = Some(2_000));
        assert!(deleted.text(false).contains("events/0: 500 offsets after the committed one are no longer"));
        assert_eq!(deleted.total(), 198_000, "what is deleted is no lag");

        let recreated = with(|lag| first(lag).end = Some(7));
        assert!(recreated.text(false).contains("1500 is committed, and the log ends at 7"));
        assert_eq!(recreated.total(), 0);
    }

    #[test]
    fn what_is_unknown_is_named_and_has_an_exit_code_of_its_own() {
        let code = |lag: &GroupLag| format!("{:?}", lag.exit_code());
        assert_eq!(code(&lag()), format!("{:?}", ExitCode::SUCCESS));
        let leaderless = with(|lag| {
            *first(lag) = PartitionLag {
                committed: Some(5),
                problem: Some("it has no leader".to_owned()),
                ..PartitionLag::default()
            };
        });
        let text = leaderless.text(false);
        assert!(text.contains("events/0: it has no leader"), "{text}");
        assert!(text.contains("│         0 ┆         5 ┆    ? ┆   ? ┆"), "{text}");
        assert!(text.ends_with("without what is unknown"), "{text}");
        assert_eq!(code(&leaderless), format!("{:?}", ExitCode::from(3)));
        let old = with(|lag| lag.description = Err("too old".to_owned()));
        assert!(
            old.text(false).starts_with("group \"g\": its members are unknown: too old"),
            "{}",
            old.text(false)
        );
        assert_eq!(code(&old), format!("{:?}", ExitCode::from(3)));
        let denied =
            with(|lag| drop(lag.unknown_topics.insert("other".to_owned(), "no permission".to_owned())));
        assert!(
            denied.text(false).contains("note: topic \"other\": no permission"),
            "{}",
            denied.text(false)
        );
        assert!(!denied.is_complete());
    }

    #[test]
    fn states_that_the_library_has_no_name_for_are_named() {
        let assigning = with(|lag| lag.description.as_mut().unwrap().state = "Unknown".to_owned());
        assert!(assigning.text(false).contains("Assigning or Reconciling"), "{}", assigning.text(false));
        let empty = with(|lag| {
            lag.partitions.clear();
            lag.description =
                Ok(GroupDescription { state: "Empty".to_owned(), ..GroupDescription::default() });
        });
        let text = empty.text(false);
        assert!(
            text.contains("Empty, classic protocol, no members") && text.contains("no committed offsets"),
            "{text}"
        );
    }
}
