//! Dead letters as `KafkaWriter` writes them: what their headers say.

use std::borrow::Cow;

use kmr_core::__private::message_headers;
use rdkafka::Message;
use rdkafka::message::BorrowedMessage;
use serde_json::{Value, json};

use kmr_cli_support::time::rfc3339;

/// Names of headers, without the writer's prefix. Values are text.
pub(crate) mod header {
    pub(crate) const TOPIC: &str = "topic";
    pub(crate) const PARTITION: &str = "partition";
    pub(crate) const OFFSET: &str = "offset";
    /// Present only if a dead letter covers a range of records.
    pub(crate) const LAST_OFFSET: &str = "last_offset";
    /// Of the record.
    pub(crate) const TIMESTAMP: &str = "timestamp";
    pub(crate) const STAGE: &str = "stage";
    pub(crate) const ERROR: &str = "error";
    pub(crate) const CODE: &str = "code";
    pub(crate) const ATTEMPT: &str = "attempt";
    pub(crate) const FIRST_SEEN: &str = "first_seen";
    pub(crate) const VERSION: &str = "version";
    pub(crate) const WRITTEN_TO: &str = "written_to";
    /// Why the dead letter is without the record's content, or a part of it.
    pub(crate) const MISSING: &str = "missing";
    /// Added by `kmr dlq replay` to a record: how often it was replayed.
    pub(crate) const REPLAYS: &str = "replays";
    /// Added by `kmr dlq replay` to a record: `topic/partition/offset` of the record that failed.
    pub(crate) const REPLAY_OF: &str = "replay_of";

    /// All of them.
    pub(crate) const ALL: [&str; 15] = [
        TOPIC,
        PARTITION,
        OFFSET,
        LAST_OFFSET,
        TIMESTAMP,
        STAGE,
        ERROR,
        CODE,
        ATTEMPT,
        FIRST_SEEN,
        VERSION,
        WRITTEN_TO,
        MISSING,
        REPLAYS,
        REPLAY_OF,
    ];
}

/// The most offsets that one dead letter covers. Headers that name more are not kmr's.
const MOST_OFFSETS: u64 = 1 << 24;

/// Name and value of a header.
pub(crate) type HeaderRef<'m> = (Cow<'m, str>, Option<&'m [u8]>);

/// The headers of a dead letter.
struct Read<'h, 'm> {
    all: &'h [HeaderRef<'m>],
    /// Those of the last failure. A record that was read from a dead-letter topic and failed again
    /// has those of each failure, and not all failures have the same ones.
    last: &'h [HeaderRef<'m>],
    prefix: &'h str,
}

impl<'h, 'm> Read<'h, 'm> {
    fn of(all: &'h [HeaderRef<'m>], prefix: &'h str) -> Self {
        let is_first = |(name, _): &HeaderRef<'_>| name.strip_prefix(prefix) == Some(header::TOPIC);
        let start = all.iter().rposition(is_first).unwrap_or(0);
        Self { all, last: &all[start..], prefix }
    }

    fn text(&self, of: &[HeaderRef<'m>], name: &str) -> Option<&'m str> {
        let is_it = |(key, _): &&HeaderRef<'_>| key.strip_prefix(self.prefix) == Some(name);
        std::str::from_utf8(of.iter().rfind(is_it)?.1?).ok()
    }

    /// A header of the last failure.
    fn last(&self, name: &str) -> Option<&'m str> {
        self.text(self.last, name)
    }

    /// The last header of this name, of whichever failure.
    fn any(&self, name: &str) -> Option<&'m str> {
        self.text(self.all, name)
    }

    fn required<T: std::str::FromStr>(&self, name: &str) -> Result<T, String> {
        let text = self.last(name).ok_or_else(|| format!("it has no header {}{name}", self.prefix))?;
        text.parse().map_err(|_| format!("its header {}{name} is no number", self.prefix))
    }

    fn source(&self) -> Result<Source, String> {
        let topic = self.required(header::TOPIC)?;
        let (partition, offset) = (self.required(header::PARTITION)?, self.required(header::OFFSET)?);
        let last_offset = match self.last(header::LAST_OFFSET) {
            Some(_) => self.required(header::LAST_OFFSET)?,
            None => offset,
        };
        let source = Source { topic, partition, offset, last_offset };
        match source.is_plausible() {
            true => Ok(source),
            false => Err(format!("no dead letter covers offsets {offset} to {last_offset}")),
        }
    }
}

/// The record, or the range of records, that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: u64,
    pub(crate) last_offset: u64,
}

impl Source {
    /// What the headers of a dead letter name.
    pub(crate) fn of(headers: &[HeaderRef<'_>], prefix: &str) -> Option<Self> {
        Read::of(headers, prefix).source().ok()
    }

    /// The record that a replay repeats, if this is one.
    pub(crate) fn of_replay(headers: &[HeaderRef<'_>], prefix: &str) -> Option<Self> {
        let mut parts = Read::of(headers, prefix).any(header::REPLAY_OF)?.rsplitn(3, '/');
        let offset = parts.next()?.parse().ok()?;
        let (partition, topic) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
        Some(Self { topic, partition, offset, last_offset: offset })
    }

    fn is_plausible(&self) -> bool {
        self.last_offset.checked_sub(self.offset).is_some_and(|more| more < MOST_OFFSETS)
    }

    /// `42`, or `42–45`.
    pub(crate) fn offsets(&self) -> String {
        match self.offset == self.last_offset {
            true => self.offset.to_string(),
            false => format!("{}–{}", self.offset, self.last_offset),
        }
    }
}

/// A dead letter without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// Its own partition and offset.
    pub(crate) partition: i32,
    pub(crate) offset: u64,
    /// When it was sent, in milliseconds since the Unix epoch.
    pub(crate) millis: Option<i64>,
    pub(crate) source: Source,
    /// The timestamp of the record.
    pub(crate) source_millis: Option<i64>,
    pub(crate) stage: String,
    pub(crate) error: String,
    pub(crate) code: Option<String>,
    /// Number of failures, with this one.
    pub(crate) attempt: u32,
    pub(crate) first_seen: Option<i64>,
    /// How often `kmr dlq replay` sent the record again.
    pub(crate) replays: u32,
    /// The version of kmr that wrote it.
    pub(crate) version: String,
    /// Why the record's content, or a part of it, is not here.
    pub(crate) missing: Option<String>,
}

impl DeadLetter {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// Why it is no dead letter of kmr.
    pub(crate) fn of(
        partition: i32,
        offset: u64,
        millis: Option<i64>,
        headers: &[HeaderRef<'_>],
        prefix: &str,
    ) -> Result<Self, String> {
        let read = Read::of(headers, prefix);
        let number = |text: &str| text.parse().ok();
        Ok(Self {
            partition,
            offset,
            millis,
            source: read.source()?,
            source_millis: read.last(header::TIMESTAMP).and_then(number),
            stage: read.required(header::STAGE)?,
            error: read.required(header::ERROR)?,
            code: read.last(header::CODE).map(str::to_owned),
            attempt: read.last(header::ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or(1),
            first_seen: read.last(header::FIRST_SEEN).and_then(number),
            replays: read.any(header::REPLAYS).and_then(|text| text.parse().ok()).unwrap_or(0),
            version: read.last(header::VERSION).unwrap_or("unknown").to_owned(),
            missing: read.any(header::MISSING).map(str::to_owned),
        })
    }

    /// Where it is in its topic: `0/12`.
    pub(crate) fn position(&self) -> String {
        format!("{}/{}", self.partition, self.offset)
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "partition": self.partition,
            "offset": self.offset,
            "time": self.millis.map(rfc3339),
            "time_millis": self.millis,
            "source": {
                "topic": self.source.topic,
                "partition": self.source.partition,
                "offset": self.source.offset,
                "last_offset": self.source.last_offset,
                "time_millis": self.source_millis,
            },
            "stage": self.stage,
            "code": self.code,
            "error": self.error,
            "attempt": self.attempt,
            "replays": self.replays,
            "first_seen_millis": self.first_seen,
            "version": self.version,
            "missing": self.missing,
        })
    }
}

/// The dead letter of a message.
///
/// # Errors
///
/// Why it is none of kmr.
pub(crate) fn read(message: &BorrowedMessage<'_>, prefix: &str) -> Result<DeadLetter, String> {
    let millis = message.timestamp().to_millis();
    let offset = message.offset().unsigned_abs();
    DeadLetter::of(message.partition(), offset, millis, &message_headers(message), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, &str)]) -> Result<DeadLetter, String> {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).into(), Some(value.as_bytes()))).collect();
        DeadLetter::of(0, 12, Some(1000), &headers, "kmr.")
    }

    const FIRST: [(&str, &str); 8] = [
        ("a", "1"),
        ("kmr.topic", "orders"),
        ("kmr.partition", "3"),
        ("kmr.offset", "42"),
        ("kmr.timestamp", "77"),
        ("kmr.stage", "map 1"),
        ("kmr.error", "no number"),
        ("kmr.code", "27"),
    ];

    #[test]
    fn headers_describe_the_failure() {
        let dead_letter = of(&FIRST).unwrap();
        assert_eq!(
            (dead_letter.source.topic.as_str(), dead_letter.source.partition, dead_letter.source.offset),
            ("orders", 3, 42)
        );
        assert_eq!(
            (dead_letter.source.offsets(), dead_letter.position()),
            ("42".to_owned(), "0/12".to_owned())
        );
        assert_eq!(
            (dead_letter.stage.as_str(), dead_letter.code.as_deref(), dead_letter.source_millis),
            ("map 1", Some("27"), Some(77))
        );
        assert_eq!((dead_letter.attempt, dead_letter.replays, dead_letter.missing), (1, 0, None));
    }

    #[test]
    fn a_second_failure_has_none_of_the_first_ones_headers() {
        let second = [
            ("kmr.topic", "orders-dead"),
            ("kmr.partition", "0"),
            ("kmr.offset", "9"),
            ("kmr.stage", "map 2"),
            ("kmr.error", "still none"),
            ("kmr.attempt", "2"),
        ];
        let first =
            [&FIRST[..], &[("kmr.last_offset", "7"), ("kmr.missing", "too large"), ("kmr.replays", "2")]]
                .concat();
        let dead_letter = of(&[&first[..], &second[..]].concat()).unwrap();
        assert_eq!(
            (dead_letter.source.topic.as_str(), dead_letter.source.offset, dead_letter.source.last_offset),
            ("orders-dead", 9, 9)
        );
        assert_eq!((dead_letter.code, dead_letter.source_millis, dead_letter.attempt), (None, None, 2));
        // What the record has lost stays lost, and it stays replayed.
        assert_eq!((dead_letter.missing.as_deref(), dead_letter.replays), (Some("too large"), 2));
    }

    #[test]
    fn messages_of_other_programs_are_named_by_what_they_lack() {
        assert_eq!(of(&[("a", "1")]).unwrap_err(), "it has no header kmr.topic");
        let mut wrong = FIRST;
        wrong[3].1 = "x";
        assert_eq!(of(&wrong).unwrap_err(), "its header kmr.offset is no number");
        assert_eq!(of(&FIRST[..5]).unwrap_err(), "it has no header kmr.stage");
        let range = |last: &str| of(&[&FIRST[..], &[("kmr.last_offset", last)]].concat());
        assert_eq!(range("45").unwrap().source.offsets(), "42–45");
        assert!(range("41").is_err() && range(&u64::MAX.to_string()).is_err());
        assert!(range(&(42 + MOST_OFFSETS).to_string()).is_err());
        assert!(range(&(41 + MOST_OFFSETS).to_string()).is_ok());
    }

    #[test]
    fn a_replay_names_the_record_that_it_repeats() {
        let of = |text: &str| Source::of_replay(&[("kmr.replay_of".into(), Some(text.as_bytes()))], "kmr.");
        let source = of("orders/3/42").unwrap();
        assert_eq!((source.topic.as_str(), source.partition, source.offset), ("orders", 3, 42));
        assert!(of("orders/42").is_none() && of("orders/3/x").is_none() && of("").is_none());
        assert!(Source::of_replay(&[], "kmr.").is_none());
    }
}
