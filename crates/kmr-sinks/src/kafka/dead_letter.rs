//! A dead letter as a message: the record as it was, with headers that say what happened to it.

use std::time::SystemTime;

use kmr_core::{DeadLetter, OwnedHeader, OwnedRecord};

use super::message::KafkaMessage;

/// What the names of the added headers start with unless [`KafkaWriter::header_prefix`](super::KafkaWriter::header_prefix) says
/// otherwise.
pub const DEFAULT_HEADER_PREFIX: &str = "kmr.";

/// Longest text of an error in a header: brokers count headers into the size of a message.
const MAX_ERROR_BYTES: usize = 4096;
/// The version of kmr that writes the letter.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The message for a letter. `now`: milliseconds since the Unix epoch.
pub(super) fn message(letter: DeadLetter, prefix: &str, now: i64) -> KafkaMessage {
    let mut message = letter.record.as_ref().map(KafkaMessage::from).unwrap_or_default();
    let before = Before::read(letter.record.as_ref(), prefix);
    let mut add = |name: &str, value: String| {
        message.headers.push(OwnedHeader { key: format!("{prefix}{name}"), value: Some(value.into_bytes()) });
    };
    add("topic", letter.partition.topic().to_owned());
    add("partition", letter.partition.partition().to_string());
    add("offset", letter.offset.to_string());
    if letter.last_offset != letter.offset {
        add("last_offset", letter.last_offset.to_string());
    }
    if let Some(millis) = letter.record.as_ref().and_then(OwnedRecord::timestamp_millis) {
        add("timestamp", millis.to_string());
    }
    add("stage", letter.stage.clone());
    add("error", cut(letter.reason()));
    if let Some(code) = letter.code() {
        add("code", code.to_owned());
    }
    add("attempt", (before.attempt + 1).to_string());
    add("first_seen", before.first_seen.unwrap_or(now).to_string());
    add("version", VERSION.to_owned());
    if let Some(why) = letter.missing {
        add("missing", cut(why));
    }
    message
}

/// Milliseconds since the Unix epoch.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What an earlier letter of the same record says: it was read from a topic of dead letters and has failed again.
#[derive(Default)]
struct Before {
    attempt: u32,
    first_seen: Option<i64>,
}

impl Before {
    fn read(record: Option<&OwnedRecord>, prefix: &str) -> Self {
        let Some(record) = record else { return Self::default() };
        let last = |name: &str| {
            let is_it =
                |header: &&OwnedHeader| header.key.strip_prefix(prefix).is_some_and(|rest| rest == name);
            let header = record.headers().iter().rfind(is_it)?;
            std::str::from_utf8(header.value.as_deref()?).ok()
        };
        let attempt = last("attempt").and_then(|text| text.parse().ok()).unwrap_or(0);
        Self { attempt, first_seen: last("first_seen").and_then(|text| text.parse().ok()) }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_ERROR_BYTES {
        let end = (0..=MAX_ERROR_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use kmr_core::WithCode;

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

    #[test]
    fn the_record_is_kept_and_what_happened_is_added() {
        let letter = DeadLetter::new(record(), "map 1", WithCode::new("27", "no number"));
        let message = message(letter, DEFAULT_HEADER_PREFIX, 1000);
        assert_eq!((message.key.as_deref(), message.payload.as_deref()), (Some(&b"k"[..]), Some(&b"p"[..])));
        assert_eq!((message.timestamp, message.topic.as_deref(), message.partition), (Some(77), None, None));
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
        ];
        assert_eq!(headers(&message), expected);
    }

    #[test]
    fn a_letter_that_fails_again_counts_on_and_keeps_when_it_was_first_seen() {
        let first = message(DeadLetter::new(record(), "map 1", "no number"), "dlq-", 1000);
        let again = first.headers.into_iter().fold(OwnedRecord::new("dlq", 0, 9), |record, header| {
            record.with_header(header.key, header.value) //
        });
        let second = message(DeadLetter::new(again, "map 2", "still none"), "dlq-", 5000);
        let headers = headers(&second);
        let all = |name| -> Vec<_> {
            headers.iter().filter(|(key, _)| *key == name).filter_map(|(_, value)| *value).collect()
        };
        assert_eq!(
            all("dlq-attempt"),
            ["1", "2"],
            "the first says where it came from, the last is the newest"
        );
        assert_eq!(all("dlq-first_seen"), ["1000", "1000"]);
        assert_eq!(all("dlq-topic"), ["orders", "dlq"]);
    }

    #[test]
    fn long_errors_are_cut_between_characters() {
        let text = cut("ü".repeat(MAX_ERROR_BYTES));
        assert!(text.len() <= MAX_ERROR_BYTES + '…'.len_utf8() && text.ends_with("ü…"), "{}", text.len());
        assert_eq!(cut("short".to_owned()), "short");
    }
}
