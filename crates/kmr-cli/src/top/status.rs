//! The JSON of `/status`, as far as `top` shows it: version 1.
//!
//! A server of an older kmr may lack fields, and a newer one may have more. Fields that are not
//! there are unknown, and fields that are not known are left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::problem::Problem;
use crate::terminal::escaped;

/// The version that this program reads.
const VERSION: u64 = 1;
/// Longest text, in characters. Nothing that is longer can be read on a terminal.
const LONGEST: usize = 2_000;

/// A text of a server: no terminal obeys it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn new(text: &str) -> Self {
        let end = text.char_indices().nth(LONGEST).map_or(text.len(), |(at, _)| at);
        Self(escaped(&text.as_bytes()[..end]))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(&text))
    }
}

/// The status of a consumer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    /// Milliseconds since 1970, by the server's clock.
    pub(super) time: i64,
    pub(super) group: Text,
    pub(super) instance: Option<Text>,
    pub(super) state: Text,
    pub(super) reason: Text,
    pub(super) healthy: bool,
    pub(super) responsive: bool,
    pub(super) uptime_seconds: Option<f64>,
    pub(super) all_paused: bool,
    pub(super) stages: Vec<Stage>,
    pub(super) partitions: Vec<Partition>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) memory: Memory,
    pub(super) totals: Totals,
    pub(super) lag_records: Option<i64>,
    pub(super) lag_seconds: Option<f64>,
    pub(super) events: Vec<Event>,
    /// Whether the server accepts actions.
    pub(super) actions: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stage {
    pub(super) name: Text,
    pub(super) waiting: u64,
    pub(super) capacity: u64,
    pub(super) deliveries: u64,
    pub(super) max_deliveries: u64,
    pub(super) rows: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Partition {
    #[serde(flatten)]
    pub(super) name: PartitionName,
    pub(super) position: Option<i64>,
    pub(super) committed: Option<i64>,
    pub(super) log_end: Option<i64>,
    pub(super) lag_records: Option<i64>,
    pub(super) lag_seconds: Option<f64>,
    pub(super) oldest_unfinished: Option<i64>,
    pub(super) age_seconds: Option<f64>,
    pub(super) waits_for: Option<Text>,
    pub(super) paused: bool,
    pub(super) late: bool,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(default)]
pub(super) struct PartitionName {
    pub(super) topic: Text,
    pub(super) partition: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Delivery {
    pub(super) stage: Text,
    pub(super) attempt: u64,
    pub(super) seconds: Option<f64>,
    pub(super) last_error: Option<Text>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    pub(super) budget_bytes: u64,
    pub(super) used_bytes: u64,
    pub(super) unmapped_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Totals {
    pub(super) records: u64,
    pub(super) rows: u64,
    pub(super) dead_letters: u64,
    pub(super) commits: u64,
    pub(super) rebalances: u64,
    pub(super) client_replacements: u64,
    pub(super) offset_resets: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    pub(super) time: i64,
    pub(super) first_time: i64,
    pub(super) kind: Text,
    pub(super) count: u64,
    pub(super) topic: Option<Text>,
    pub(super) partition: Option<i64>,
    pub(super) offset: Option<i64>,
    pub(super) stage: Option<Text>,
    pub(super) text: Text,
}

/// A status, and the JSON that it was read from.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) json: Value,
}

impl Answer {
    /// # Errors
    /// The bytes are no JSON, are not of a kmr consumer, or are of a version that is not known.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let json: Value = serde_json::from_slice(bytes).map_err(|_| Problem::NoStatus)?;
        let version = json.get("version").and_then(Value::as_u64);
        match (version, json.get("state").and_then(Value::as_str)) {
            (Some(VERSION), Some(_)) => {}
            (Some(other), Some(_)) => return Err(Problem::Version(other)),
            _ => return Err(Problem::NoStatus),
        }
        let status = Status::deserialize(&json).map_err(|error| Problem::Unreadable(error.to_string()))?;
        Ok(Self { status, json })
    }
}

impl Status {
    pub(super) fn is_ended(&self) -> bool {
        self.state.as_str() == "ended"
    }

    pub(super) fn late(&self) -> usize {
        self.partitions.iter().filter(|partition| partition.late).count()
    }

    /// Age of the oldest record that is unfinished, of all partitions.
    pub(super) fn age_seconds(&self) -> Option<f64> {
        self.partitions.iter().filter_map(|partition| partition.age_seconds).reduce(f64::max)
    }

    /// The events of a kind, the newest first.
    pub(super) fn events_of<'s>(&'s self, kind: &'s str) -> impl Iterator<Item = &'s Event> {
        self.events.iter().filter(move |event| event.kind.as_str() == kind)
    }

    /// Offsets of the next records to receive, by partition.
    pub(super) fn positions(&self) -> BTreeMap<PartitionName, i64> {
        let known =
            self.partitions.iter().filter_map(|p| p.position.map(|position| (p.name.clone(), position)));
        known.collect()
    }
}

impl PartitionName {
    pub(super) fn text(&self) -> String {
        format!("{}/{}", self.topic.as_str(), self.partition)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: &Value) -> Result<Answer, Problem> {
        Answer::parse(value.to_string().as_bytes())
    }

    #[test]
    fn fields_of_older_and_newer_servers_are_unknown_or_left_out() {
        let answer = parse(&json!({
            "version": 1, "state": "running", "new": {"field": 1},
            "partitions": [{ "topic": "events", "partition": 3, "newer": true }],
        }));
        let status = answer.unwrap().status;
        assert_eq!(status.partitions[0].name.text(), "events/3");
        assert_eq!((status.partitions[0].lag_records, status.lag_records), (None, None));
        assert!(!status.actions && !status.is_ended());
    }

    #[test]
    fn another_version_and_what_is_no_status_are_named() {
        assert_eq!(parse(&json!({ "version": 2, "state": "running" })).unwrap_err(), Problem::Version(2));
        for other in
            [json!([1]), json!({ "state": "running" }), json!({ "version": 1 }), json!("x"), Value::Null]
        {
            assert_eq!(parse(&other).unwrap_err(), Problem::NoStatus, "{other}");
        }
        assert_eq!(Answer::parse(b"<html>").unwrap_err(), Problem::NoStatus);
        let wrong = parse(&json!({ "version": 1, "state": "running", "partitions": "many" })).unwrap_err();
        assert!(matches!(&wrong, Problem::Unreadable(why) if why.contains("sequence")), "{wrong:?}");
    }

    #[test]
    fn no_text_of_a_server_controls_the_terminal() {
        let text = "\u{1b}[2J\u{9b}1m\u{202e}a\tb\n";
        let status = parse(&json!({
            "version": 1, "state": text, "group": text, "reason": text, "instance": text,
            "partitions": [{ "topic": text, "partition": 0, "waits_for": text }],
            "events": [{ "kind": text, "text": text.repeat(1_000) }],
        }));
        let status = status.unwrap().status;
        let all = format!("{status:?}").replace("\\\\", "\\");
        assert!(!all.chars().any(|c| c.is_control() || c == '\u{202e}'), "{all}");
        assert_eq!(status.group.as_str(), "\\u{1b}[2J\\u{9b}1m\\u{202e}a\\tb\\n");
        assert!(status.events[0].text.as_str().chars().count() <= LONGEST * 10);
    }
}
