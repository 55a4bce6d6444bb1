//! The program as operators run it: as a process, with its exit code and output.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may fail in any way")]

use kmr_cli_support::testing::{self, Output};
use kmr_core::testing::{EmbeddedCluster, NewRecord};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

fn kmr(args: &[&str]) -> Output {
    testing::run(env!("CARGO_BIN_EXE_kmr"), args).unwrap()
}

#[test]
fn an_unreachable_broker_is_named() {
    for command in [
        &["verify"][..],
        &["offsets", "reset", "--to", "earliest"],
        &["lag"],
        &["lag", "--watch"],
    ] {
        let output = kmr(&[command, &["--broker", "127.0.0.1:9"]].concat());
        assert_eq!(output.code, Some(1), "{command:?}: {}", output.stderr);
        let error = output.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(error.contains("no broker reachable at 127.0.0.1:9") && error.contains("check"), "{error}");
        assert!(output.stderr.lines().count() < 10, "errors repeat themselves: {}", output.stderr);
    }
}

#[test]
fn doctor_reports_unreachable_servers_and_fails() {
    let at = ["--broker", "127.0.0.1:9", "--clickhouse", "127.0.0.1:9"];
    let output = kmr(&[&["doctor", "--json"], &at[..]].concat());
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    let json: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&json["passed"], &json["guarantee"]["delivery"]), (&false.into(), &"none".into()), "{json}");
    for name in ["broker", "ClickHouse"] {
        let check = json["checks"].as_array().unwrap().iter().find(|check| check["check"] == name).unwrap();
        let found = check["found"].as_str().unwrap();
        assert!(check["state"] == "fail" && found.contains("127.0.0.1:9"), "{check}");
    }
}

#[test]
fn check_covers_only_what_a_start_needs() {
    let cluster = EmbeddedCluster::start().unwrap();
    cluster.create_topic("events", 3).unwrap();
    let at = ["--broker", cluster.bootstrap_servers(), "--topic", "events", "--clickhouse", "127.0.0.1:9"];
    let output = kmr(&[&["check", "--json"], &at[..]].concat());
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    let json: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let states: Vec<_> =
        json["checks"].as_array().unwrap().iter().map(|c| (text(&c["check"]), text(&c["state"]))).collect();
    let expected = [
        ("settings", "ok"),
        ("broker", "ok"),
        ("topic", "ok"),
        ("group coordinator", "ok"),
        ("ClickHouse", "fail"),
        ("table", "unknown"),
        ("columns", "unknown"),
        ("writer", "unknown"),
    ];
    assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state.to_owned())));
    assert!(json.get("guarantee").is_none(), "{json}");
}

#[test]
fn wrong_flags_end_with_code_2() {
    for args in [
        &["check-everything"][..],
        &["verify", "--offsets-at-a-time", "0"],
        &["doctor", "--protocol", "raft"],
        &["offsets", "reset", "--to", "newest"],
        &["lag", "--watch", "0"],
        &["run"],
    ] {
        let output = kmr(args);
        assert_eq!(output.code, Some(2), "{args:?}: {}", output.stderr);
        assert!(output.stderr.starts_with("error: ") && output.stdout.is_empty(), "{}", output.stderr);
    }
}

#[test]
fn help_names_commands_and_flags() {
    let help = kmr(&["--help"]).stdout;
    for word in ["check", "doctor", "verify", "offsets", "lag", "kmr-demo"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let help = kmr(&["verify", "--help"]).stdout;
    for word in ["missing", "double", "not checkable", "--dead-letter-topic", "--allow-missing", "--json"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let help = kmr(&["doctor", "--help"]).stdout;
    for word in
        ["127.0.0.1:9092", "127.0.0.1:8123", "test-map-reduce-consumer", "32768", "KMR_KAFKA_PASSWORD"]
    {
        assert!(help.contains(word), "{word}: {help}");
    }
}

/// Commits an offset for a group.
fn commit(cluster: &EmbeddedCluster, group: &str, topic: &str, partition: i32, offset: i64) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", group)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

#[test]
fn lag_of_a_topic_is_shown_also_by_a_broker_that_describes_no_group() {
    let cluster = EmbeddedCluster::start().unwrap();
    cluster.create_topic("events", 2).unwrap();
    cluster.produce("events", (0..10).map(|n| NewRecord::new(n % 2).with_payload("x"))).unwrap();
    commit(&cluster, "readers", "events", 0, 3);
    let at = ["--broker", cluster.bootstrap_servers(), "--group", "readers", "--topic"];
    let lag = |more: &[&str]| kmr(&[&["lag"], &at[..], more].concat());

    let output = lag(&["events", "--json"]);
    assert_eq!(output.code, Some(3), "members are unknown: {}", output.stderr);
    let json: Value = serde_json::from_str(&output.stdout).unwrap();
    let of = |partition: usize| {
        let one = &json["partitions"][partition];
        (one["committed"].clone(), one["log_start"].clone(), one["log_end"].clone(), one["lag"].clone())
    };
    assert_eq!(of(0), (json!(3), json!(0), json!(5), json!(2)), "{json}");
    assert_eq!(of(1), (Value::Null, json!(0), json!(5), Value::Null), "{json}");
    assert_eq!((&json["lag"], &json["members"]), (&json!(2), &Value::Null));

    let output = lag(&["events"]);
    assert!(output.stdout.contains("its members are unknown"), "{}", output.stdout);
    assert!(output.stdout.contains("│         1 ┆      none ┆ 0–5 ┆   – ┆     – │"), "{}", output.stdout);
    assert!(!output.stdout.contains('\u{1b}'), "no colours without a terminal: {}", output.stdout);

    let output = lag(&["absent"]);
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    assert!(output.stdout.contains("topic \"absent\": it does not exist"), "{}", output.stdout);
}
