//! A dead letter as a message: the record, with headers that describe its failure.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use kmr_core::{DeadLetter, OwnedHeader, OwnedRecord};

use super::added_headers::{AddedHeaders, LargeDeadLetter};
use super::error::KafkaWriteError;
use super::message::KafkaMessage;

/// Default prefix of the added headers; see
/// [`KafkaWriter::header_prefix`](super::KafkaWriter::header_prefix).
pub const DEFAULT_HEADER_PREFIX: &str = "kmr.";

/// Maximum size of an error's text in a header. Brokers count headers in the size of a message.
const MAX_ERROR_BYTES: usize = 4096;
/// The version of kmr that writes the dead letter.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How a writer makes messages of dead letters.
#[derive(Clone, Debug)]
pub(super) struct DeadLetterFormat {
    /// The topic of the dead letters.
    pub(super) topic: Arc<str>,
    /// The id of its cluster, which is known after the start.
    pub(super) cluster: Arc<OnceLock<String>>,
    pub(super) prefix: Arc<str>,
    pub(super) large: LargeDeadLetter,
}

impl DeadLetterFormat {
    /// Identifies the topic among all clusters.
    fn target(&self) -> String {
        format!("{}/{}", self.cluster.get().map_or("", String::as_str), self.topic)
    }

    /// Whether the record is a dead letter that was read from the topic that it was written to.
    fn came_back(&self, dead_letter: &DeadLetter) -> bool {
        let Some(record) = &dead_letter.record else { return false };
        dead_letter.partition.topic() == &*self.topic
            && last_header(record, &self.prefix, WRITTEN_TO).is_some_and(|target| target == self.target())
    }
}

/// Header with the cluster and the topic that a dead letter was written to.
const WRITTEN_TO: &str = "written_to";

/// The message for a dead letter. `now` is in milliseconds since the Unix epoch.
///
/// The message has no timestamp, so it gets the time of sending: a topic rejects timestamps outside
/// of its limits, and deletes a message by its timestamp. That of the record is in a header.
///
/// # Errors
/// The record is a dead letter of the same topic.
pub(super) fn message(
    dead_letter: DeadLetter,
    format: &DeadLetterFormat,
    now: i64,
) -> Result<KafkaMessage, KafkaWriteError> {
    let prefix = &*format.prefix;
    if format.came_back(&dead_letter) {
        return Err(KafkaWriteError::Loop {
            topic: dead_letter.partition.topic().to_owned(),
            partition: dead_letter.partition.partition(),
            offset: dead_letter.offset,
        });
    }
    let mut message = dead_letter.record.as_ref().map(KafkaMessage::from).unwrap_or_default();
    message.timestamp = None;
    let (first, large) = (message.headers.len(), format.large);
    message.added = Some(Box::new(AddedHeaders { first, prefix: format.prefix.clone(), large }));
    let earlier = EarlierFailure::read(dead_letter.record.as_ref(), prefix);
    let mut add = |name: &str, value: String| {
        message.headers.push(OwnedHeader::new(format!("{prefix}{name}"), Some(value.into_bytes())));
    };
    add("topic", dead_letter.partition.topic().to_owned());
    add("partition", dead_letter.partition.partition().to_string());
    add("offset", dead_letter.offset.to_string());
    if dead_letter.last_offset != dead_letter.offset {
        add("last_offset", dead_letter.last_offset.to_string());
    }
    if let Some(millis) = dead_letter.record.as_ref().and_then(OwnedRecord::timestamp_millis) {
        add("timestamp", millis.to_string());
    }
    add("stage", dead_letter.stage.clone());
    add("error", truncated(dead_letter.reason()));
    if let Some(code) = dead_letter.code() {
        add("code", code.to_owned());
    }
    add("attempt", earlier.attempt.saturating_add(1).to_string());
    add("first_seen", earlier.first_seen.unwrap_or(now).to_string());
    add("version", VERSION.to_owned());
    add(WRITTEN_TO, format.target());
    if let Some(why) = dead_letter.missing_reason {
        add("missing", truncated(why));
    }
    Ok(message)
}

/// The last header `prefix` + `name` of a record, as text.
fn last_header<'r>(record: &'r OwnedRecord, prefix: &str, name: &str) -> Option<&'r str> {
    let is_it = |header: &&OwnedHeader| header.key.strip_prefix(prefix).is_some_and(|rest| rest == name);
    std::str::from_utf8(record.headers().iter().rfind(is_it)?.value.as_deref()?).ok()
}

/// Milliseconds since the Unix epoch.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The headers of an earlier dead letter of the record. The record was read from a dead letter
/// topic and failed again.
#[derive(Default)]
struct EarlierFailure {
    attempt: u32,
    first_seen: Option<i64>,
}

impl EarlierFailure {
    fn read(record: Option<&OwnedRecord>, prefix: &str) -> Self {
        let Some(record) = record else { return Self::default() };
        let last = |name: &str| last_header(record, prefix, name);
        let attempt = last("attempt").and_then(|text| text.parse().ok()).unwrap_or(0);
        Self { attempt, first_seen: last("first_seen").and_then(|text| text.parse().ok()) }
    }
}

fn truncated(mut text: String) -> String {
    if text.len() > MAX_ERROR_BYTES {
        let end = (0..=MAX_ERROR_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use kmr_core::CodedError;

    use super::*;

    fn headers(message: &KafkaMessage) -> Vec<(&str, Option<&str>)> {
        let text = |value| std::str::from_utf8(value).unwrap();
        message.headers.iter().map(|header| (&*header.key, header.value.as_deref().map(text))).collect()
    }

    fn record() -> OwnedRecord {
        OwnedRecord::new("orders", 3, 42)
            .with_key("k")
            .with_payload("p")
            .with_header("a", Some(b"1".to_vec()))
            .with_header("a", None)
            .with_timestamp_millis(77)
    }

    fn format(topic: &str, prefix: &str) -> DeadLetterFormat {
        let cluster = Arc::new(OnceLock::from("c1".to_owned()));
        let large = LargeDeadLetter::default();
        DeadLetterFormat { topic: topic.into(), cluster, prefix: prefix.into(), large }
    }

    #[test]
    fn the_record_is_kept_and_the_failure_is_added() {
        let dead_letter = DeadLetter::new(record(), "map 1", CodedError::new("27", "no number"));
        let message = message(dead_letter, &format("dead", DEFAULT_HEADER_PREFIX), 1000).unwrap();
        assert_eq!((message.key.as_deref(), message.payload.as_deref()), (Some(&b"k"[..]), Some(&b"p"[..])));
        assert_eq!((message.timestamp, message.topic.as_deref(), message.partition), (None, None, None));
        assert_eq!(message.added.as_ref().map(|added| added.first), Some(2));
        let expected = [
            ("a", Some("1")),
            ("a", None),
            ("kmr.topic", Some("orders")),
            ("kmr.partition", Some("3")),
            ("kmr.offset", Some("42")),
            ("kmr.timestamp", Some("77")),
            ("kmr.stage", Some("map 1")),
            ("kmr.error", Some("no number")),
            ("kmr.code", Some("27")),
            ("kmr.attempt", Some("1")),
            ("kmr.first_seen", Some("1000")),
            ("kmr.version", Some(VERSION)),
            ("kmr.written_to", Some("c1/dead")),
        ];
        assert_eq!(headers(&message), expected);
    }

    #[test]
    fn a_record_that_fails_again_has_the_next_attempt_and_the_first_time() {
        let made = |dead_letter, topic, now| message(dead_letter, &format(topic, "dlq-"), now).unwrap();
        let first = made(DeadLetter::new(record(), "map 1", "no number"), "dlq", 1000);
        let again = first.headers.into_iter().fold(OwnedRecord::new("dlq", 0, 9), |record, header| {
            record.with_header(header.key, header.value) //
        });
        let second = made(DeadLetter::new(again, "map 2", "still none"), "dlq-2", 5000);
        let headers = headers(&second);
        let all = |name| -> Vec<_> {
            headers.iter().filter(|(key, _)| *key == name).filter_map(|(_, value)| *value).collect()
        };
        assert_eq!(all("dlq-attempt"), ["1", "2"], "each failure adds its own headers");
        assert_eq!(all("dlq-first_seen"), ["1000", "1000"]);
        assert_eq!(all("dlq-topic"), ["orders", "dlq"]);
    }

    #[test]
    fn a_replayed_record_that_fails_again_keeps_its_count_of_replays() {
        let text = |value: &str| Some(value.as_bytes().to_vec());
        let replayed = record()
            .with_header("kmr.replays", text("2"))
            .with_header("kmr.replay_of", text("orders/3/17"))
            .with_header("kmr.attempt", text("2"))
            .with_header("kmr.first_seen", text("500"));
        let dead_letter = DeadLetter::new(replayed, "map 1", "no number");
        let message = message(dead_letter, &format("dead", "kmr."), 1000).unwrap();
        let headers = headers(&message);
        let last = |name| headers.iter().rfind(|(key, _)| *key == name).and_then(|(_, value)| *value);
        assert_eq!((last("kmr.replays"), last("kmr.replay_of")), (Some("2"), Some("orders/3/17")));
        assert_eq!((last("kmr.attempt"), last("kmr.first_seen")), (Some("3"), Some("500")));
        assert_eq!(last("kmr.offset"), Some("42"));
    }

    #[test]
    fn a_dead_letter_that_comes_back_from_its_own_topic_is_an_error() {
        let own = format("dlq", "kmr.");
        let first = message(DeadLetter::new(record(), "map 1", "no number"), &own, 1000).unwrap();
        let read_from = |topic: &str| {
            first.headers.iter().fold(OwnedRecord::new(topic, 1, 9), |record, header| {
                record.with_header(header.key.clone(), header.value.clone())
            })
        };
        let again = |topic, format| message(DeadLetter::new(read_from(topic), "map 1", "no"), format, 2000);
        let text = again("dlq", &own).unwrap_err().to_string();
        assert!(text.contains("dlq/1 offset 9") && text.contains("reads its own dead letters"), "{text}");
        // Put back into its source by an operator, or read from a topic of that name elsewhere.
        assert!(again("orders", &own).is_ok());
        let elsewhere =
            DeadLetterFormat { cluster: Arc::new(OnceLock::from("c2".to_owned())), ..format("dlq", "kmr.") };
        assert!(again("dlq", &elsewhere).is_ok());
    }

    #[test]
    fn long_errors_are_truncated_between_characters() {
        let text = truncated("ü".repeat(MAX_ERROR_BYTES));
        assert!(text.len() <= MAX_ERROR_BYTES + '…'.len_utf8() && text.ends_with("ü…"), "{}", text.len());
        assert_eq!(truncated("short".to_owned()), "short");
    }
}
