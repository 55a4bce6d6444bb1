//! Statuses for tests.

use serde_json::{Value, json};

use super::address::Address;
use super::app::App;
use super::problem::Problem;
use super::status::Answer;

/// Milliseconds since 1970 of the first status: 2026-11-30T09:00:00Z.
const START: i64 = 1_796_029_200_000;

/// The status of a consumer of four partitions, so many seconds after the start. Each partition
/// receives 250 records a second. One of them is late.
pub(super) fn status(second: i64) -> Value {
    let partition = |n: i64| {
        let is_late = n == 2;
        let position = 1_000_000 + 250 * second;
        let oldest = if is_late { Some(900_000) } else { (n == 1).then_some(position - 120) };
        let waits_for = is_late.then_some("the sink of reduce 1: attempt 7 of a delivery");
        json!({
            "topic": "events", "partition": n, "position": position, "committed": oldest.unwrap_or(position),
            "log_end": position + 10, "lag_records": position + 10 - oldest.unwrap_or(position),
            "lag_seconds": if is_late { 95.0 } else { 0.4 }, "oldest_unfinished": oldest,
            "age_seconds": if is_late { 92.3 } else { 0.2 }, "waits_for": waits_for,
            "paused": false, "late": is_late, "unmapped_bytes": 0,
        })
    };
    let time = START + 1_000 * second;
    json!({
        "version": 1, "time": time, "group": "events-to-clickhouse", "instance": "pod-1", "state": "running",
        "reason": "events/2 makes no progress for 92 s; waits for the sink of reduce 1: attempt 7 of a delivery",
        "connected": true, "healthy": false, "responsive": true, "uptime_seconds": 5_000 + second,
        "all_paused": false,
        "stages": [stage("reduce 1", 3, 4), stage("reduce_err", 0, 0)],
        "partitions": (0..4).map(partition).collect::<Vec<_>>(),
        "deliveries": [{ "stage": "reduce 1", "attempt": 7, "seconds": 91.2, "last_error": "code 252: too many parts" }],
        "memory": { "budget_bytes": 201_326_592, "used_bytes": 171_000_000, "unmapped_bytes": 30_000_000 },
        "totals": {
            "records": 4_000_000 + 1_000 * second, "bytes": 1, "dead_letters": 41, "rows": 3_900_000 + 1_000 * second,
            "commits": 1_234, "rebalances": 2, "client_replacements": 0, "offset_resets": 0,
        },
        "lag_records": 100_180, "lag_seconds": 95.0,
        "events": [
            event("error", time, 7, "delivery failed: code 252: too many parts", Some(2)),
            event("dead_letter", time - 5_000, 41, "invalid digit found in string", Some(3)),
            event("rebalance", time - 60_000, 1, "4 partitions assigned in 12 ms", None),
        ],
        "actions": true,
    })
}

fn stage(name: &str, waiting: u64, deliveries: u64) -> Value {
    json!({
        "name": name, "waiting": waiting, "capacity": 16, "deliveries": deliveries, "max_deliveries": 4,
        "rows": 3_900_000,
    })
}

fn event(kind: &str, time: i64, count: u64, text: &str, partition: Option<i64>) -> Value {
    let topic = partition.map(|_| "events");
    json!({
        "kind": kind, "time": time, "first_time": time - 90_000, "count": count, "topic": topic,
        "partition": partition, "offset": partition.map(|_| 123_456), "stage": "reduce 1", "text": text,
    })
}

/// The same, changed.
pub(super) fn with(second: i64, change: impl FnOnce(&mut Value)) -> Result<Answer, Problem> {
    let mut value = status(second);
    change(&mut value);
    Answer::parse(value.to_string().as_bytes())
}

/// A consumer that is healthy and idle.
fn healthy(group: &str, second: i64) -> Result<Answer, Problem> {
    with(second, |status| {
        status["group"] = json!(group);
        status["instance"] = Value::Null;
        status["healthy"] = json!(true);
        status["reason"] = json!("All partitions make progress.");
        status["partitions"] = json!([]);
        status["events"] = json!([]);
        (status["lag_records"], status["lag_seconds"]) = (json!(0), json!(0.0));
    })
}

/// A screen of so many consumers: one that is late, one that is unreachable, and healthy ones.
pub(super) fn app(consumers: usize) -> App {
    let addresses = (0..consumers).map(|n| Address::parse(&format!("10.0.0.{n}:9464")).unwrap()).collect();
    let mut app = App::new(addresses, true);
    for second in 0..4 {
        app.update(0, with(second, |_| {}));
        for place in 2..consumers {
            app.update(place, healthy(&format!("group-{place}"), second));
        }
    }
    app.update(1, Err(Problem::Unreachable("Connection refused (os error 111)".to_owned())));
    app
}
