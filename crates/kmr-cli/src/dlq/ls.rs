//! `dlq ls`: one line for each dead letter, the newest last.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use kmr_cli_support::numbers::{counted, grouped};
use kmr_cli_support::output;
use kmr_cli_support::time::rfc3339;
use serde_json::{Value, json};

use super::TopicArgs;
use super::filter::Filter;
use super::topic::{DeadLetterTopic, Strangers};
use crate::dead_letter::DeadLetter;
use crate::terminal::{self, aligned, escaped, shortened};

/// Columns of a line that goes to no terminal.
const PIPED_COLUMNS: usize = 200;
/// The error has at least this many columns.
const LEAST_ERROR: usize = 10;

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    topic: TopicArgs,
    #[command(flatten)]
    filter: Filter,
    /// Number of dead letters to list: the newest ones.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    limit: u64,
    /// Print JSON on standard output in place of the lines.
    #[arg(long)]
    json: bool,
}

/// Reads and lists.
pub(super) async fn ls(args: LsArgs) -> anyhow::Result<ExitCode> {
    let is_json = args.json;
    let listed = tokio::task::spawn_blocking(move || list(&args));
    let listing = listed.await.context("the thread that reads Kafka")??;
    if is_json {
        output::result(&terminal::json(&listing.json()));
    } else {
        let columns = terminal::width().map_or(PIPED_COLUMNS, usize::from);
        output::result(&listing.text(columns));
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: &LsArgs) -> anyhow::Result<Listing> {
    let topic = DeadLetterTopic::open(&args.topic, "kmr-dlq")?;
    let mut listing = Listing { topic: topic.name.clone(), ..Listing::default() };
    listing.strangers =
        topic.read(&args.filter, |dead_letter, _| listing.dead_letters.add(dead_letter, args.limit))?;
    Ok(listing)
}

/// The newest dead letters, of all partitions.
#[derive(Debug, Default)]
struct Newest {
    by_time: BTreeMap<(i64, i32, u64), DeadLetter>,
    count: u64,
}

impl Newest {
    fn add(&mut self, dead_letter: DeadLetter, limit: u64) {
        self.count += 1;
        let time = dead_letter.millis.unwrap_or(i64::MIN);
        self.by_time.insert((time, dead_letter.partition, dead_letter.offset), dead_letter);
        if self.by_time.len() as u64 > limit {
            self.by_time.pop_first();
        }
    }
}

/// What `ls` prints.
#[derive(Debug, Default)]
struct Listing {
    topic: String,
    dead_letters: Newest,
    strangers: Strangers,
}

impl Listing {
    fn text(&self, columns: usize) -> String {
        let dead_letters: Vec<&DeadLetter> = self.dead_letters.by_time.values().collect();
        let mut lines = if dead_letters.is_empty() { Vec::new() } else { lines(&dead_letters, columns) };
        let older = self.dead_letters.count - dead_letters.len() as u64;
        if older > 0 {
            lines.push(format!("note: {} older ones are not listed; --limit lists more", grouped(older)));
        }
        lines.extend(self.strangers.note().map(|note| format!("note: {note}")));
        lines.push(format!(
            "{} selected in {:?}",
            counted(self.dead_letters.count, "dead letter"),
            self.topic
        ));
        lines.join("\n")
    }

    fn json(&self) -> Value {
        json!({
            "topic": self.topic,
            "selected": self.dead_letters.count,
            "dead_letters": self.dead_letters.by_time.values().map(DeadLetter::json).collect::<Vec<_>>(),
            "other_messages": self.strangers.json(),
        })
    }
}

fn lines(dead_letters: &[&DeadLetter], columns: usize) -> Vec<String> {
    let sources: BTreeSet<&str> =
        dead_letters.iter().map(|dead_letter| dead_letter.source.topic.as_str()).collect();
    // One topic is named once.
    let (title, is_one) = match sources.iter().next() {
        Some(topic) if sources.len() == 1 => (format!("in {}", escaped(topic.as_bytes())), true),
        _ => ("source".to_owned(), false),
    };
    let row = |dead_letter: &&DeadLetter| {
        let place = format!("{}/{}", dead_letter.source.partition, dead_letter.source.offsets());
        let text = |text: &str| escaped(text.as_bytes());
        vec![
            dead_letter.position(),
            dead_letter.millis.map_or_else(|| "–".to_owned(), rfc3339),
            if is_one { place } else { format!("{}/{place}", text(&dead_letter.source.topic)) },
            shortened(&text(&dead_letter.stage), 24),
            dead_letter.code.as_deref().map_or_else(|| "–".to_owned(), |code| shortened(&text(code), 16)),
            String::new(),
        ]
    };
    let mut rows: Vec<Vec<String>> = dead_letters.iter().map(row).collect();
    let titles = ["position", "sent", &title, "stage", "code", "error"];
    // What the other columns leave.
    let others = aligned(&titles[..5], &rows.iter().map(|row| row[..5].to_vec()).collect::<Vec<_>>());
    let used = others.iter().map(|line| console::measure_text_width(line)).max().unwrap_or(0) + 2;
    let room = columns.saturating_sub(used).max(LEAST_ERROR);
    for (row, dead_letter) in rows.iter_mut().zip(dead_letters) {
        row[5] = shortened(&escaped(dead_letter.error.as_bytes()), room);
    }
    aligned(&titles, &rows)
}

#[cfg(test)]
mod tests {
    use super::super::filter::tests::dead_letter;
    use super::*;
    use crate::dead_letter::Source;

    fn listing(dead_letters: impl IntoIterator<Item = DeadLetter>, limit: u64) -> Listing {
        let mut listing = Listing { topic: "orders-dead".to_owned(), ..Listing::default() };
        dead_letters.into_iter().for_each(|dead_letter| listing.dead_letters.add(dead_letter, limit));
        listing
    }

    #[test]
    fn a_line_fits_into_eighty_columns() {
        let long = DeadLetter { error: "no number \u{1b}[31m".repeat(20), ..dead_letter() };
        let text = listing([dead_letter(), DeadLetter { offset: 10, code: None, ..long }], 9).text(80);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "position  sent                  in orders  stage  code  error");
        assert_eq!(
            lines[1],
            "1/9       1970-01-01T00:00:05Z  3/42       map 1  27    no number: digit 17 of …"
        );
        assert!(lines[2].ends_with('…') && !lines[2].contains('\u{1b}'), "{text}");
        assert!(lines.iter().all(|line| console::measure_text_width(line) <= 80), "{text}");
        assert_eq!(lines[3], "2 dead letters selected in \"orders-dead\"");
    }

    #[test]
    fn sources_of_several_topics_are_named_and_the_newest_are_kept() {
        let of = |topic: &str, offset| {
            let source = Source { topic: topic.to_owned(), ..dead_letter().source };
            DeadLetter { offset, millis: Some(offset.cast_signed()), source, ..dead_letter() }
        };
        let listing = listing([of("a", 3), of("b", 2), of("a", 1)], 2);
        let text = listing.text(120);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("b/3/42") && lines[2].contains("a/3/42"), "{text}");
        assert!(text.contains("note: 1 older ones are not listed"), "{text}");
        let json = listing.json();
        assert_eq!(
            (json["selected"].as_u64(), json["dead_letters"][1]["offset"].as_u64()),
            (Some(3), Some(3))
        );
    }

    #[test]
    fn an_empty_topic_has_no_lines() {
        assert_eq!(listing([], 2).text(80), "0 dead letters selected in \"orders-dead\"");
    }
}
