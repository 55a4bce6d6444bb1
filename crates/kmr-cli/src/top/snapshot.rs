//! One status of each consumer as plain text, or as JSON.

use std::process::ExitCode;

use kmr_cli_support::numbers::counted;
use kmr_cli_support::time;
use serde_json::{Value, json};

use super::consumer::Consumer;
use super::format::{bytes, clock, count, lag, offset, percent, rate, seconds};
use super::sort::{self, Sort};
use super::state::partition_state;
use super::status::{Event, Partition, Status};
use super::view::place;
use crate::terminal::aligned;

/// Events of a kind that are shown.
const EVENTS: usize = 5;

/// 0: every server has a status. 1: none has. 3: some have none.
pub(super) fn exit_code(consumers: &[Consumer]) -> ExitCode {
    let missing = consumers.iter().filter(|consumer| consumer.problem.is_some()).count();
    ExitCode::from(match missing {
        0 => 0,
        all if all == consumers.len() => 1,
        _ => 3,
    })
}

/// For programs.
pub(super) fn json(consumers: &[Consumer]) -> Value {
    let one = |consumer: &Consumer| {
        let known = consumer.answer.as_ref().filter(|_| consumer.problem.is_none());
        json!({
            "address": consumer.address.at(""),
            "problem": consumer.problem.as_ref().map(ToString::to_string),
            "records_per_second": consumer.history.records_per_second(),
            "rows_per_second": consumer.history.rows_per_second(),
            "status": known.map(|answer| &answer.json),
        })
    };
    json!({ "consumers": consumers.iter().map(one).collect::<Vec<_>>() })
}

/// For people.
pub(super) fn text(consumers: &[Consumer]) -> String {
    let mut lines = vec![format!("kmr top, {}", time::rfc3339(time::now_millis()))];
    if consumers.len() > 1 {
        lines.extend(overview(consumers));
    }
    for consumer in consumers {
        lines.push(String::new());
        lines.extend(details(consumer));
    }
    lines.join("\n")
}

fn overview(consumers: &[Consumer]) -> Vec<String> {
    let row = |consumer: &Consumer| {
        let status = consumer.current();
        let value = |text: fn(&Status) -> String| status.map_or_else(|| "–".to_owned(), text);
        vec![
            consumer.word().to_owned(),
            consumer.name().unwrap_or_default(),
            consumer.address.text().to_owned(),
            rate(consumer.history.records_per_second()),
            value(|status| lag(status.lag_records)),
            value(|status| seconds(status.age_seconds())),
            value(|status| format!("{}%", percent(status.memory.used_bytes, status.memory.budget_bytes))),
            value(|status| count(status.totals.dead_letters)),
        ]
    };
    let order = sort::consumers(consumers, Sort::Worst);
    let rows: Vec<_> = order.iter().map(|place| row(&consumers[*place])).collect();
    aligned(
        &["state", "consumer", "address", ">records/s", ">lag", ">age", ">memory", ">dead letters"],
        &rows,
    )
}

fn details(consumer: &Consumer) -> Vec<String> {
    let name = consumer.name().map_or_else(String::new, |name| format!("{name} "));
    let mut lines = vec![format!("{name}at {}: {}", consumer.address.text(), consumer.word())];
    lines.push(format!("  {}", consumer.reason()));
    let Some(status) = consumer.current() else { return lines };
    let memory = &status.memory;
    lines.push(format!(
        "  up {}, {} records/s, {} rows/s, lag {}, memory {} of {}",
        seconds(status.uptime_seconds),
        rate(consumer.history.records_per_second()),
        rate(consumer.history.rows_per_second()),
        lag(status.lag_records),
        bytes(memory.used_bytes),
        bytes(memory.budget_bytes),
    ));
    lines.push(format!("  {}", graph(status)));
    section(&mut lines, "partitions", partitions(status, consumer));
    section(&mut lines, "deliveries", deliveries(status));
    for (kind, title) in [("error", "errors"), ("dead_letter", "dead letters"), ("rebalance", "rebalances")] {
        let all: Vec<&Event> = status.events.iter().filter(|event| event.kind.as_str() == kind).collect();
        section(&mut lines, title, events(&all));
    }
    lines
}

fn section(lines: &mut Vec<String>, title: &str, rows: Vec<String>) {
    if !rows.is_empty() {
        lines.push(format!("  {title}:"));
        lines.extend(rows.into_iter().map(|row| format!("    {row}")));
    }
}

/// The steps, each with the fill of the channel before it.
fn graph(status: &Status) -> String {
    let memory = &status.memory;
    let mut text = format!("fetch [{}%] map", percent(memory.unmapped_bytes, memory.budget_bytes));
    for stage in &status.stages {
        let name = stage.name.as_str();
        let before = if name == "reduce_err" { "; failed records" } else { "" };
        let fill = percent(stage.waiting, stage.capacity);
        let (deliveries, most) = (stage.deliveries, stage.max_deliveries);
        text += &format!("{before} [{fill}%] {name} ({deliveries} of {most} deliveries)");
    }
    text + &format!("; {}", counted(status.totals.commits, "commit"))
}

fn partitions(status: &Status, consumer: &Consumer) -> Vec<String> {
    let row = |partition: &&Partition| {
        vec![
            partition_state(partition).0.to_owned(),
            partition.name.text(),
            lag(partition.lag_records),
            seconds(partition.lag_seconds),
            rate(consumer.history.partition_rate(&partition.name)),
            seconds(partition.age_seconds),
            offset(partition.oldest_unfinished),
            partition.waits_for.as_ref().map_or("–", |text| text.as_str()).to_owned(),
        ]
    };
    let all = sort::partitions(status, &consumer.history, Sort::Worst);
    let rows: Vec<_> = all.iter().map(row).collect();
    let titles =
        ["state", "partition", ">lag", ">lag time", ">records/s", ">age", ">oldest unfinished", "waits for"];
    if rows.is_empty() { Vec::new() } else { aligned(&titles, &rows) }
}

fn deliveries(status: &Status) -> Vec<String> {
    let line = |delivery: &super::status::Delivery| {
        let error =
            delivery.last_error.as_ref().map_or_else(String::new, |text| format!(": {}", text.as_str()));
        let (stage, time) = (delivery.stage.as_str(), seconds(delivery.seconds));
        format!("{stage}, attempt {}, {time}{error}", delivery.attempt)
    };
    status.deliveries.iter().map(line).collect()
}

fn events(all: &[&Event]) -> Vec<String> {
    let line = |event: &&Event| {
        let place = match place(event) {
            place if place.is_empty() => place,
            place => format!(" ({place})"),
        };
        // Dead letters have no text: it might be part of a payload.
        let text =
            if event.text.as_str().is_empty() { String::new() } else { format!(" {}", event.text.as_str()) };
        format!("{} {} ×{text}{place}", clock(event.time), count(event.count))
    };
    let mut lines: Vec<String> = all.iter().take(EVENTS).map(line).collect();
    if all.len() > EVENTS {
        lines.push(format!("… {} more: --json has all of them", all.len() - EVENTS));
    }
    lines
}

#[cfg(test)]
mod tests;
