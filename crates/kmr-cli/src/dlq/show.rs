//! `dlq show`: one dead letter with all of its headers, and its content on demand.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use kmr_cli_support::numbers::counted;
use kmr_cli_support::output;
use kmr_cli_support::time::rfc3339;
use kmr_core::__private::message_headers;
use rdkafka::Message;
use serde_json::{Value, json};

use super::TopicArgs;
use super::topic::DeadLetterTopic;
use crate::dead_letter::{self, DeadLetter};
use crate::terminal::{self, aligned, escaped};
use crate::topic_reader::{self, Next};

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    topic: TopicArgs,
    /// The dead letter's offset in its topic.
    offset: u64,
    /// Its partition. Needed if the topic has several.
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
    /// Show the record's key and payload too, with control characters escaped.
    #[arg(long)]
    payload: bool,
    /// Print JSON on standard output in place of the text.
    #[arg(long)]
    json: bool,
}

/// Reads and shows.
pub(super) async fn show(args: ShowArgs) -> anyhow::Result<ExitCode> {
    let (is_json, with_content) = (args.json, args.payload);
    let read = tokio::task::spawn_blocking(move || read(&args));
    let shown = read.await.context("the thread that reads Kafka")??;
    output::result(&match is_json {
        true => terminal::json(&shown.json(with_content)),
        false => shown.text(with_content),
    });
    Ok(ExitCode::SUCCESS)
}

fn read(args: &ShowArgs) -> anyhow::Result<Shown> {
    let topic = DeadLetterTopic::open(&args.topic, "kmr-dlq")?;
    let name = &topic.name;
    let with_records: Vec<i32> = topic.ranges.keys().copied().collect();
    let partition = match (args.partition, with_records.as_slice()) {
        (Some(partition), _) => partition,
        (None, [only]) => *only,
        (None, []) => bail!("topic {name:?} is empty"),
        (None, _) => {
            bail!("topic {name:?} has several partitions with dead letters; name one with --partition")
        }
    };
    let offset = args.offset;
    match topic.ranges.get(&partition) {
        Some(range) if range.contains(&offset) => {}
        Some(range) => bail!(
            "{name}/{partition} has no offset {offset}: it has {} to {}",
            range.start,
            range.end.saturating_sub(1)
        ),
        None => bail!("{name}/{partition} is empty, or there is no such partition"),
    }
    let mut shown = None;
    let range = BTreeMap::from([(partition, offset..offset + 1)]);
    topic_reader::read(&topic.consumer, name, range, |message| {
        let headers = message_headers(message);
        shown = Some(Shown {
            topic: name.clone(),
            dead_letter: dead_letter::read(message, &topic.prefix),
            position: format!("{partition}/{offset}"),
            millis: message.timestamp().to_millis(),
            headers: headers
                .into_iter()
                .map(|(key, value)| (key.into_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
        });
        Ok(Next::Nothing)
    })?;
    shown.with_context(|| {
        format!("{name}/{partition} has no record at offset {offset}: it was compacted away, or belongs to a transaction")
    })
}

/// A message of the dead-letter topic.
#[derive(Debug)]
struct Shown {
    topic: String,
    /// Or why it is none.
    dead_letter: Result<DeadLetter, String>,
    position: String,
    millis: Option<i64>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
}

impl Shown {
    fn text(&self, with_content: bool) -> String {
        let sent = self.millis.map(|millis| format!(", sent {}", rfc3339(millis))).unwrap_or_default();
        let mut lines = vec![format!("{}/{}{sent}", self.topic, self.position)];
        match &self.dead_letter {
            Ok(dead_letter) => lines.extend(failure(dead_letter)),
            Err(why) => lines.push(format!("no dead letter of kmr: {why}")),
        }
        lines.push("headers".to_owned());
        let row = |(name, value): &(String, Option<Vec<u8>>)| {
            let value = value.as_deref().map_or_else(|| "(null)".to_owned(), escaped);
            vec![format!("  {}", escaped(name.as_bytes())), value]
        };
        let rows: Vec<_> = self.headers.iter().map(row).collect();
        lines.extend(aligned(&["", ""], &rows).into_iter().skip(1));
        for (name, content) in [("key", &self.key), ("payload", &self.payload)] {
            lines.push(match content {
                None => format!("{name}: none"),
                Some(bytes) if with_content => {
                    format!("{name}, {}:\n{}", counted(bytes.len() as u64, "byte"), escaped(bytes))
                }
                Some(bytes) => {
                    format!("{name}: {}; --payload shows them", counted(bytes.len() as u64, "byte"))
                }
            });
        }
        lines.join("\n")
    }

    fn json(&self, with_content: bool) -> Value {
        let header = |(name, value): &(String, Option<Vec<u8>>)| json!({ "name": name, "value": value.as_deref().map(content) });
        let mut shown = match &self.dead_letter {
            Ok(dead_letter) => dead_letter.json(),
            Err(why) => json!({ "position": self.position, "no_dead_letter": why }),
        };
        shown["topic"] = json!(self.topic);
        shown["headers"] = self.headers.iter().map(header).collect();
        shown["key_bytes"] = json!(self.key.as_ref().map(Vec::len));
        shown["payload_bytes"] = json!(self.payload.as_ref().map(Vec::len));
        if with_content {
            shown["key"] = json!(self.key.as_deref().map(content));
            shown["payload"] = json!(self.payload.as_deref().map(content));
        }
        shown
    }
}

/// Text, or the numbers of bytes that are no UTF-8.
fn content(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| json!({ "bytes": bytes }), |text| json!(text))
}

fn failure(dead_letter: &DeadLetter) -> Vec<String> {
    let text = |text: &str| escaped(text.as_bytes());
    let source = &dead_letter.source;
    let of_time = dead_letter.source_millis.map(|millis| format!(", of {}", rfc3339(millis)));
    let first = dead_letter.first_seen.map(|millis| format!(", first at {}", rfc3339(millis)));
    let mut rows = vec![
        (
            "record",
            format!(
                "{}/{} offset {}{}",
                text(&source.topic),
                source.partition,
                source.offsets(),
                of_time.unwrap_or_default()
            ),
        ),
        ("stage", text(&dead_letter.stage)),
        ("code", dead_letter.code.as_deref().map_or_else(|| "none".to_owned(), text)),
        ("error", text(&dead_letter.error)),
        ("failed", format!("{}{}", counted(dead_letter.attempt.into(), "time"), first.unwrap_or_default())),
        ("replayed", counted(dead_letter.replays.into(), "time")),
        ("written by", format!("kmr {}", text(&dead_letter.version))),
    ];
    if let Some(why) = &dead_letter.missing {
        rows.push(("missing", text(why)));
    }
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    aligned(&["", ""], &rows).into_iter().skip(1).collect()
}

#[cfg(test)]
mod tests {
    use super::super::filter::tests::dead_letter;
    use super::*;

    fn shown() -> Shown {
        Shown {
            topic: "orders-dead".to_owned(),
            dead_letter: Ok(dead_letter()),
            position: "1/9".to_owned(),
            millis: Some(5_000),
            headers: vec![("a\u{7}".to_owned(), Some(b"1\x1b[2J".to_vec())), ("n".to_owned(), None)],
            key: None,
            payload: Some(b"{\"secret\": \x1b]0;title\x07}".to_vec()),
        }
    }

    #[test]
    fn content_is_shown_on_demand_only_and_never_controls_the_terminal() {
        let text = shown().text(false);
        assert!(
            !text.contains("secret") && text.contains("payload: 22 bytes; --payload shows them"),
            "{text}"
        );
        assert!(text.contains("record      orders/3 offset 42, of 1970-01-01T00:00:00Z"), "{text}");
        assert!(text.contains("a\\u{7}  1\\u{1b}[2J") && text.contains("(null)"), "{text}");
        let text = shown().text(true);
        assert!(text.contains("payload, 22 bytes:\n{\"secret\": \\u{1b}]0;title\\u{7}}"), "{text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
        let json = terminal::json(&shown().json(true));
        assert!(!json.chars().any(char::is_control) && json.contains("secret"), "{json}");
        assert!(!terminal::json(&shown().json(false)).contains("secret"));
    }

    #[test]
    fn a_message_of_another_program_is_shown_as_such() {
        let other = Shown { dead_letter: Err("it has no header kmr.topic".to_owned()), ..shown() };
        assert!(other.text(false).contains("no dead letter of kmr: it has no header kmr.topic"));
        assert_eq!(other.json(false)["no_dead_letter"], "it has no header kmr.topic");
        assert_eq!(content(&[0xff]), json!({ "bytes": [255] }));
    }
}
