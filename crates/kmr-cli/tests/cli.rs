//! The program as operators run it: as a process, with its exit code and output.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may fail in any way")]

use kmr_cli_support::testing::{self, Output};
use kmr_core::testing::{EmbeddedCluster, NewRecord};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
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
        &["dlq", "ls", "--dead-letter-topic", "dead"],
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

/// What is printed is complete: it is that of the current command line.
#[test]
fn completions_and_man_pages_cover_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = kmr(&["completions", shell]);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        assert!(output.stdout.contains("doctor") && output.stdout.contains("dead-letter-topic"), "{shell}");
    }
    let directory = std::env::temp_dir().join(format!("kmr-man-{}", std::process::id()));
    let path = directory.to_str().unwrap();
    let output = kmr(&["man", path]);
    assert!(output.code == Some(1) && output.stderr.contains("create it"), "{}", output.stderr);
    std::fs::create_dir(&directory).unwrap();
    let output = kmr(&["man", path]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let page = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let (main, run) = (page("kmr.1"), page("kmr-run.1"));
    assert!(page("kmr-dlq-replay.1").contains("dead"));
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(main.contains("Exit codes") && run.contains("SIGHUP"), "{main}");
}

#[test]
fn the_schema_is_json_and_a_file_is_shown_as_a_graph() {
    let schema: Value = serde_json::from_str(&kmr(&["schema"]).stdout).unwrap();
    assert_eq!(schema["title"], "Pipelines of kmr");
    let path = std::env::temp_dir().join(format!("kmr-graph-{}.toml", std::process::id()));
    let source =
        "source = { brokers = \"127.0.0.1:9\", topics = \"t\", group = \"g\", password = \"s3cret\" }";
    std::fs::write(&path, format!("[p]\n{source}\nstdout = {{}}\n")).unwrap();
    let file = path.to_str().unwrap();
    let (graph, diagram) = (kmr(&["graph", file]), kmr(&["graph", file, "--format", "mermaid"]));
    let (check, settings) = (kmr(&["check", file]), kmr(&["check", file, "--settings", "--json"]));
    let connected = kmr(&["check", file, "--connect"]);
    std::fs::remove_file(&path).unwrap();
    assert!(
        graph.stdout.contains("topics t") && diagram.stdout.starts_with("flowchart LR"),
        "{}",
        graph.stderr
    );
    assert!(check.stdout.starts_with("ok: pipeline `p`"), "{} {}", check.stdout, check.stderr);
    let settings: Value = serde_json::from_str(&settings.stdout).unwrap();
    let password = settings.as_array().unwrap().iter().find(|one| one["key"] == "p.source.password").unwrap();
    assert_eq!((&password["value"], &password["line"]), (&"(hidden)".into(), &2.into()));
    assert_eq!(connected.code, Some(1), "{}", connected.stdout);
    assert!(
        connected.stdout.contains("pipeline `p`") && connected.stdout.contains("source.brokers"),
        "{}",
        connected.stdout
    );
    assert!(!connected.stdout.contains("s3cret") && !connected.stdout.contains("--broker"));
}

#[test]
fn wrong_flags_end_with_code_2() {
    for args in [
        &["check-everything"][..],
        &["verify", "--offsets-at-a-time", "0"],
        &["doctor", "--protocol", "raft"],
        &["check", "--connect"],
        &["init", "--topic", "t"],
        &["completions", "tcsh"],
        &["offsets", "reset", "--to", "newest"],
        &["lag", "--watch", "0"],
        &["dlq", "ls"],
        &["dlq", "ls", "--dead-letter-topic", "dead", "--since", "soon"],
        &["dlq", "show", "--dead-letter-topic", "dead"],
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
    for word in ["check", "doctor", "verify", "offsets", "lag", "dlq", "kmr-demo"] {
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

/// A dead letter of kmr, as `KafkaWriter` writes it.
fn dead_letter(partition: i32, offset: i64, stage: &str, error: &str) -> NewRecord {
    let text = |value: &str| Some(value.as_bytes().to_vec());
    NewRecord::new(partition)
        .with_key("k")
        .with_payload(format!("payload {offset} \u{1b}[2J"))
        .with_timestamp_millis(1_700_000_000_000 + offset)
        .with_header("a", text("1"))
        .with_header("kmr.topic", text("orders"))
        .with_header("kmr.partition", text("0"))
        .with_header("kmr.offset", text(&offset.to_string()))
        .with_header("kmr.timestamp", text("77000"))
        .with_header("kmr.stage", text(stage))
        .with_header("kmr.error", text(error))
        .with_header("kmr.attempt", text("1"))
        .with_header("kmr.version", text("0.1.0"))
}

#[test]
fn dead_letters_are_listed_shown_and_counted() {
    let cluster = EmbeddedCluster::start().unwrap();
    cluster.create_topic("dead", 2).unwrap();
    let dead_letters = [
        dead_letter(0, 40, "map 1", "no number: digit 4"),
        dead_letter(1, 41, "map 1", "no number: digit 7"),
        dead_letter(0, 42, "reduce 1", "column a: no null"),
        NewRecord::new(1).with_payload("of another program"),
    ];
    cluster.produce("dead", dead_letters).unwrap();
    let at = ["--broker", cluster.bootstrap_servers(), "--dead-letter-topic", "dead"];
    let dlq = |command: &[&str]| {
        let output = kmr(&[&["dlq"], command, &at[..]].concat());
        assert_eq!(output.code, Some(0), "{command:?}: {}", output.stderr);
        assert!(!output.stdout.chars().any(|c| c.is_control() && c != '\n'), "{}", output.stdout);
        output.stdout
    };
    let listed = dlq(&["ls"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines[0], "position  sent                  in orders  stage     code  error");
    assert_eq!(lines[1], "0/0       2023-11-14T22:13:20Z  0/40       map 1     –     no number: digit 4");
    assert!(lines[3].starts_with("0/1 ") && lines[3].contains("reduce 1"), "{listed}");
    assert!(
        lines[4].contains("1 message is no dead letter")
            && lines[4].contains("1/1: it has no header kmr.topic")
    );
    assert_eq!(lines[5], "3 dead letters selected in \"dead\"");

    let selected = dlq(&["ls", "--stage", "map 1", "--reason", "digit 7", "--json"]);
    let json: Value = serde_json::from_str(&selected).unwrap();
    assert_eq!(
        (&json["selected"], &json["dead_letters"][0]["source"]["offset"]),
        (&json!(1), &json!(41)),
        "{json}"
    );
    assert!(dlq(&["ls", "--limit", "1"]).contains("2 older ones are not listed"));
    assert!(dlq(&["ls", "--until", "2023-11-14T00:00:00Z"]).contains("\n0 dead letters selected"));

    let shown = dlq(&["show", "0", "--partition", "0"]);
    assert!(shown.contains("orders/0 offset 40, of 1970-01-01T00:01:17Z"), "{shown}");
    assert!(shown.contains("kmr.stage") && !shown.contains("payload 40"), "{shown}");
    assert!(dlq(&["show", "0", "--partition", "0", "--payload"]).contains("payload 40 \\u{1b}[2J"));
    assert!(dlq(&["show", "1", "--partition", "1"]).contains("no dead letter of kmr"));

    let counted = dlq(&["histogram"]);
    assert!(counted.contains("  2  66.7%  no number: digit N\n"), "{counted}");
    let json: Value = serde_json::from_str(&dlq(&["histogram", "--json"])).unwrap();
    assert_eq!(json["stages"]["counts"][0], json!({ "name": "map 1", "count": 2 }), "{json}");
}

#[test]
fn dead_letters_that_are_not_there_are_named() {
    let cluster = EmbeddedCluster::start().unwrap();
    cluster.create_topic("dead", 2).unwrap();
    cluster.produce("dead", [dead_letter(1, 40, "map 1", "no")]).unwrap();
    for (command, expected) in [
        (&["ls", "--dead-letter-topic", "absent"][..], "topic \"absent\" does not exist"),
        (&["show", "9", "--dead-letter-topic", "dead"], "dead/1 has no offset 9: it has 0 to 0"),
        (&["show", "0", "--partition", "7", "--dead-letter-topic", "dead"], "no such partition"),
    ] {
        let output = kmr(&[&["dlq"], command, &["--broker", cluster.bootstrap_servers()]].concat());
        assert_eq!(output.code, Some(1), "{command:?}: {}", output.stdout);
        assert!(output.stderr.contains(expected), "{}", output.stderr);
    }
}

#[test]
fn dead_letters_are_replayed_with_their_content_headers_and_timestamps() {
    let cluster = EmbeddedCluster::start().unwrap();
    cluster.create_topic("orders", 1).unwrap();
    cluster.create_topic("retries", 1).unwrap();
    cluster.create_topic("dead", 1).unwrap();
    let replayed_before = |count: &str| Some(count.as_bytes().to_vec());
    let dead_letters = [
        dead_letter(0, 40, "map 1", "no number"),
        dead_letter(0, 41, "reduce 1", "no null"),
        dead_letter(0, 42, "map 1", "no number").with_header("kmr.replays", replayed_before("2")),
        dead_letter(0, 43, "map 1", "no number").with_header("kmr.replays", replayed_before("3")),
        dead_letter(0, 44, "map 1", "too large").with_header("kmr.missing", replayed_before("too large")),
        NewRecord::new(0).with_payload("of another program"),
    ];
    cluster.produce("dead", dead_letters).unwrap();
    let at = ["--broker", cluster.bootstrap_servers(), "--dead-letter-topic", "dead"];
    let replay = |more: &[&str]| {
        let output = kmr(&[&["dlq", "replay"], &at[..], more].concat());
        (output.code, format!("{}{}", output.stdout, output.stderr))
    };
    let (code, text) = replay(&["--dry-run", "--stage", "map 1"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains("2  would be replayed to \"orders\"") && text.contains("1 filtered, 3 rejected"),
        "{text}"
    );
    assert_eq!(cluster.end_offsets("orders").unwrap(), [(0, 0)].into());

    let (code, text) = replay(&["--stage", "map 1", "--rate", "1000/s"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains("2 replayed, 1 filtered, 3 rejected; progress in group \"kmr-replay-dead-"),
        "{text}"
    );
    assert!(text.contains("rejected: 0/3: its record was replayed 3 times"), "{text}");
    assert!(text.contains("rejected: 0/4: it lacks content of its record: too large"), "{text}");
    assert!(
        text.contains("rejected: 0/5: it is no dead letter of kmr: it has no header kmr.topic"),
        "{text}"
    );
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "reader")
        .create()
        .unwrap();
    let mut start = TopicPartitionList::new();
    start.add_partition_offset("orders", 0, Offset::Beginning).unwrap();
    consumer.assign(&start).unwrap();
    let message = loop {
        if let Some(message) = consumer.poll(std::time::Duration::from_secs(30)) {
            break message.unwrap();
        }
    };
    assert_eq!((message.key(), message.timestamp().to_millis()), (Some(&b"k"[..]), Some(77_000)));
    assert_eq!(message.payload(), Some("payload 40 \u{1b}[2J".as_bytes()));
    let headers: Vec<_> = message
        .headers()
        .unwrap()
        .iter()
        .map(|header| (header.key, std::str::from_utf8(header.value.unwrap()).unwrap()))
        .collect();
    let expected = [("a", "1"), ("kmr.replays", "1"), ("kmr.replay_of", "orders/0/40"), ("kmr.attempt", "1")];
    assert_eq!(headers, expected);

    let (code, text) = replay(&["--to", "retries", "--limit", "2", "--skip", "0/0"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains("2  replayed to \"retries\"") && text.contains("rejected: 0/0: --skip names it"),
        "{text}"
    );
    assert_eq!(cluster.end_offsets("orders").unwrap(), [(0, 2)].into());
}

#[test]
fn a_replay_that_cannot_be_is_explained_and_sends_nothing() {
    let cluster = EmbeddedCluster::start().unwrap();
    cluster.create_topic("dead", 1).unwrap();
    cluster.produce("dead", [dead_letter(0, 40, "map 1", "no number")]).unwrap();
    // A group of a consumer that reads the topic.
    commit(&cluster, "another-consumer", "dead", 0, 1);
    for (more, expected) in [
        (&["--to", "dead"][..], "--to names the dead-letter topic"),
        (&["--as", "another-consumer"], "are not those of a replay"),
        (&[], "topic \"orders\" does not exist"),
    ] {
        let at = ["--broker", cluster.bootstrap_servers(), "--dead-letter-topic", "dead"];
        let output = kmr(&[&["dlq", "replay"], &at[..], more].concat());
        assert_eq!(output.code, Some(1), "{more:?}: {}", output.stdout);
        assert!(output.stderr.contains(expected), "{}", output.stderr);
        assert!(output.stdout.is_empty(), "{}", output.stdout);
    }
}
