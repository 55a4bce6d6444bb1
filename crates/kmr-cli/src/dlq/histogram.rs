//! `dlq histogram`: counts dead letters by what they have in common.

use std::collections::BTreeMap;
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

/// The most names that are counted apart. Reasons may have any text, and memory must not grow with
/// the topic.
const MOST_NAMES: usize = 10_000;
const HOUR: i64 = 3_600_000;
/// Columns of a line that goes to no terminal.
const PIPED_COLUMNS: usize = 200;

#[derive(Debug, Args)]
pub(crate) struct HistogramArgs {
    #[command(flatten)]
    topic: TopicArgs,
    #[command(flatten)]
    filter: Filter,
    /// Number of lines for each kind of count.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    top: u64,
    /// Print JSON on standard output in place of the lines. It has all counts.
    #[arg(long)]
    json: bool,
}

/// Reads and counts.
pub(super) async fn histogram(args: HistogramArgs) -> anyhow::Result<ExitCode> {
    let (is_json, top) = (args.json, args.top);
    let counted = tokio::task::spawn_blocking(move || count(&args));
    let histogram = counted.await.context("the thread that reads Kafka")??;
    output::result(&match is_json {
        true => terminal::json(&histogram.json()),
        false => histogram.text(top, terminal::width().map_or(PIPED_COLUMNS, usize::from)),
    });
    Ok(ExitCode::SUCCESS)
}

fn count(args: &HistogramArgs) -> anyhow::Result<Histogram> {
    let topic = DeadLetterTopic::open(&args.topic, "kmr-dlq")?;
    let mut histogram = Histogram { topic: topic.name.clone(), ..Histogram::default() };
    histogram.strangers = topic.read(&args.filter, |dead_letter, _| histogram.add(&dead_letter))?;
    Ok(histogram)
}

/// Counts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    by_name: BTreeMap<String, u64>,
    /// Those of names that came when there were too many.
    other: u64,
}

impl Counts {
    fn add(&mut self, name: String) {
        let has_room = self.by_name.len() < MOST_NAMES;
        match self.by_name.get_mut(&name) {
            Some(count) => *count += 1,
            None if has_room => drop(self.by_name.insert(name, 1)),
            None => self.other += 1,
        }
    }

    /// The largest counts first.
    fn largest(&self) -> Vec<(&str, u64)> {
        let mut counts: Vec<_> = self.by_name.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }
}

#[derive(Debug, Default)]
struct Histogram {
    topic: String,
    total: u64,
    stages: Counts,
    codes: Counts,
    reasons: Counts,
    /// Of the dead letters' sources.
    partitions: Counts,
    hours: BTreeMap<i64, u64>,
    strangers: Strangers,
}

impl Histogram {
    fn add(&mut self, dead_letter: &DeadLetter) {
        self.total += 1;
        self.stages.add(dead_letter.stage.clone());
        self.codes.add(dead_letter.code.clone().unwrap_or_else(|| "none".to_owned()));
        self.reasons.add(folded(&dead_letter.error));
        self.partitions.add(format!("{}/{}", dead_letter.source.topic, dead_letter.source.partition));
        if let Some(millis) = dead_letter.millis {
            *self.hours.entry(millis.div_euclid(HOUR)).or_default() += 1;
        }
    }

    fn text(&self, top: u64, columns: usize) -> String {
        let mut lines = Vec::new();
        for (title, counts) in self.kinds() {
            let largest = counts.largest();
            let shown = largest.len().min(usize::try_from(top).unwrap_or(usize::MAX));
            let rows: Vec<_> =
                largest[..shown].iter().map(|(name, count)| self.row(*count, name, columns)).collect();
            lines.extend(section(title, &rows));
            let more: u64 = largest[shown..].iter().map(|(_, count)| count).sum::<u64>() + counts.other;
            if more > 0 {
                lines.push(format!("  and {}; --top shows more", counted(more, "other")));
            }
        }
        let hours = self.hours.iter().rev().take(usize::try_from(top).unwrap_or(usize::MAX));
        let mut rows: Vec<_> =
            hours.map(|(hour, count)| self.row(*count, &hour_text(*hour), columns)).collect();
        rows.reverse();
        let left_out = self.hours.len() - rows.len();
        lines.extend(section("hour (UTC)", &rows));
        if left_out > 0 {
            lines.push(format!("  and {}; --top shows more", counted(left_out as u64, "earlier hour")));
        }
        lines.extend(self.strangers.note().map(|note| format!("note: {note}")));
        lines.push(format!("{} selected in {:?}", counted(self.total, "dead letter"), self.topic));
        lines.join("\n")
    }

    fn kinds(&self) -> [(&'static str, &Counts); 4] {
        [
            ("stage", &self.stages),
            ("code", &self.codes),
            ("reason", &self.reasons),
            ("partition of the record", &self.partitions),
        ]
    }

    /// Count, ratio and name. A name has the columns that are left.
    fn row(&self, count: u64, name: &str, columns: usize) -> Vec<String> {
        let percent = if self.total == 0 { 0.0 } else { count as f64 * 100.0 / self.total as f64 };
        let (count, ratio) = (format!("  {}", grouped(count)), format!("{percent:.1}%"));
        let room = columns.saturating_sub(count.len().max(12) + 12).max(20);
        vec![count, ratio, shortened(&escaped(name.as_bytes()), room)]
    }

    fn json(&self) -> Value {
        let counts = |counts: &Counts| {
            let by_name: Vec<_> = counts
                .largest()
                .into_iter()
                .map(|(name, count)| json!({ "name": name, "count": count }))
                .collect();
            json!({ "counts": by_name, "other": counts.other })
        };
        let hours: Vec<_> = self
            .hours
            .iter()
            .map(|(hour, count)| json!({ "from": rfc3339(hour * HOUR), "count": count }))
            .collect();
        json!({
            "topic": self.topic,
            "selected": self.total,
            "stages": counts(&self.stages),
            "codes": counts(&self.codes),
            "reasons": counts(&self.reasons),
            "partitions": counts(&self.partitions),
            "hours": hours,
            "other_messages": self.strangers.json(),
        })
    }
}

fn section(title: &str, rows: &[Vec<String>]) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![title.to_owned()];
    lines.extend(aligned(&[">", ">", ""], rows).into_iter().skip(1));
    lines
}

/// `2026-11-30T09h`
fn hour_text(hour: i64) -> String {
    let text = rfc3339(hour * HOUR);
    format!("{}h", text.get(..13).unwrap_or(&text).replace('T', " "))
}

/// The reason with N in place of numbers, so that failures of one kind have one reason. A word that
/// starts with a digit is a number with a unit, and one of hexadecimal digits a part of an id. A
/// number at the end of a name, as in `UInt8`, belongs to the name.
fn folded(reason: &str) -> String {
    let mut text = String::with_capacity(reason.len());
    let mut rest = reason;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let end = match is_word(first) {
            true => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let (word, after) = rest.split_at(end);
        fold_word(&mut text, word);
        rest = after;
    }
    // 1.5, 1,000 and 1:2 are one number each.
    for separated in ["N.N", "N,N"] {
        while text.contains(separated) {
            text = text.replace(separated, "N");
        }
    }
    text
}

fn fold_word(text: &mut String, word: &str) {
    let is_hex = word.len() >= 4 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    if has_digit && (is_hex || word.starts_with("0x")) {
        text.push('N');
    } else if digits > 0 {
        text.push('N');
        // The unit.
        text.extend(word[digits..].chars().filter(|c| !c.is_ascii_digit()));
    } else {
        text.push_str(word);
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter::tests::dead_letter;
    use super::*;

    #[test]
    fn reasons_of_one_kind_are_equal_after_folding() {
        assert_eq!(folded("row 17: value 1,234.5 > 3"), "row N: value N > N");
        assert_eq!(folded("id 550e8400-e29b-41d4-a716-446655440000"), "id N-N-N-N-N");
        assert_eq!(
            folded("column a: UInt8 wants 300 at 0x7f after 12ms"),
            "column a: UInt8 wants N at N after Nms"
        );
        assert_eq!(folded("no digits, ünïcode, face"), "no digits, ünïcode, face");
        assert_eq!(folded(""), "");
    }

    fn histogram() -> Histogram {
        let mut histogram = Histogram { topic: "orders-dead".to_owned(), ..Histogram::default() };
        for n in 0..4 {
            let error = format!("no number: digit {n}");
            histogram.add(&DeadLetter { error, millis: Some(n * HOUR / 2), ..dead_letter() });
        }
        histogram.add(&DeadLetter { stage: "reduce 1\u{1b}[2J".to_owned(), code: None, ..dead_letter() });
        histogram
    }

    #[test]
    fn counts_are_by_stage_code_reason_partition_and_hour() {
        let text = histogram().text(20, 80);
        let expected = "stage\n  4  80.0%  map 1\n  1  20.0%  reduce 1\\u{1b}[2J\n\
                        code\n  4  80.0%  27\n  1  20.0%  none\n\
                        reason\n  4  80.0%  no number: digit N\n  1  20.0%  no number: digit N of row N\n\
                        partition of the record\n  5  100.0%  orders/3\n\
                        hour (UTC)\n  3  60.0%  1970-01-01 00h\n  2  40.0%  1970-01-01 01h\n\
                        5 dead letters selected in \"orders-dead\"";
        assert_eq!(text, expected);
        let json = histogram().json();
        assert_eq!(json["reasons"]["counts"][0], json!({ "name": "no number: digit N", "count": 4 }));
        assert_eq!(json["hours"][1], json!({ "from": "1970-01-01T01:00:00Z", "count": 2 }));
    }

    #[test]
    fn what_is_not_shown_is_counted() {
        let text = histogram().text(1, 80);
        assert!(text.contains("  and 1 other;") && text.contains("and 1 earlier hour;"), "{text}");
        assert!(
            text.contains("1970-01-01 01h") && !text.contains("1970-01-01 00h"),
            "the latest hours: {text}"
        );
        let mut counts = Counts::default();
        (0..MOST_NAMES + 7).for_each(|n| counts.add(n.to_string()));
        assert_eq!((counts.by_name.len(), counts.other), (MOST_NAMES, 7));
    }

    #[test]
    fn nothing_is_counted_in_an_empty_topic() {
        let empty = Histogram { topic: "t".to_owned(), ..Histogram::default() };
        assert_eq!(empty.text(20, 80), "0 dead letters selected in \"t\"");
    }
}
