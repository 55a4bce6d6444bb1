//! The program as its users run it: as a process, with its exit code and output.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which may fail in any way")]

use kmr_cli_support::testing::{self, Output};
use kmr_core::testing::{EmbeddedCluster, NewRecord};

fn demo(args: &[&str]) -> Output {
    testing::run(env!("CARGO_BIN_EXE_kmr-demo"), args).unwrap()
}

/// The numbers of a table's row whose first cell is `name`.
fn row(table: &str, name: &str) -> Vec<u64> {
    let cells = |line: &str| -> Vec<String> {
        line.split(['│', '┆'])
            .map(|cell| cell.trim().replace(',', ""))
            .filter(|cell| !cell.is_empty())
            .collect()
    };
    let found = table.lines().map(cells).find(|cells| cells.first().is_some_and(|first| first == name));
    let found = found.unwrap_or_else(|| panic!("no row {name:?} in\n{table}"));
    found[1..].iter().map(|cell| cell.parse().unwrap()).collect()
}

#[test]
fn the_embedded_demo_accounts_for_every_message() {
    let output = demo(&["--messages", "50001", "--partitions", "4", "--malformed-ratio", "1/500"]);
    assert_eq!(output.code, Some(0), "{}\n{}", output.stdout, output.stderr);
    let [produced, in_sink, missing, double, dead_letters, committed] = row(&output.stdout, "all")[..] else {
        panic!("{}", output.stdout);
    };
    assert_eq!((produced, missing, double, committed), (50_001, 0, 0, 50_001), "{}", output.stdout);
    assert_eq!(in_sink + dead_letters, produced, "{}", output.stdout);
    assert!((50..200).contains(&dead_letters), "{}", output.stdout);
    assert_eq!(row(&output.stdout, "0")[0], 12_501, "{}", output.stdout);
    assert_eq!(output.stderr.lines().filter(|line| line.starts_with("dead letter: ")).count(), 5);
    assert!(output.stderr.contains("further dead letters are counted"), "{}", output.stderr);
    assert!(output.stdout.contains("records/s"), "{}", output.stdout);
}

#[test]
fn the_status_server_is_named_and_an_address_that_is_taken_ends_the_program() {
    let output = demo(&["--messages", "1000", "--status", "127.0.0.1:0"]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(output.stderr.contains("status page: http://127.0.0.1:"), "{}", output.stderr);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for command in [&["--messages", "10"][..], &["run", "--sink", "drop"]] {
        let output = demo(&[command, &["--status", &address]].concat());
        assert_eq!(output.code, Some(1), "{}", output.stderr);
        assert!(
            output.stderr.contains(&address) && output.stderr.contains("choose another port"),
            "{}",
            output.stderr
        );
    }
}

#[test]
fn a_reader_that_ends_early_is_no_error() {
    use std::process::{Command, Stdio};
    let mut command = Command::new(env!("CARGO_BIN_EXE_kmr-demo"));
    command.args(["--messages", "1000", "--malformed-ratio", "1/10"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !stderr.contains("panicked"), "{:?}: {stderr}", output.status);

    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("1,000"), "{:?}: {stdout}", output.status);
}

#[test]
fn run_consumes_what_produce_produced() {
    let cluster = EmbeddedCluster::start().unwrap();
    cluster.create_topic("events", 3).unwrap();
    let at = ["--broker", cluster.bootstrap_servers(), "--topic", "events"];
    let produce = ["produce", "--count", "3000", "--malformed-ratio", "1/100", "--size", "120"];
    let produced = demo(&[&produce[..], &at].concat());
    assert_eq!(produced.code, Some(0), "{}", produced.stderr);
    assert!(produced.stderr.contains("produced 3,000 messages"), "{}", produced.stderr);
    cluster.produce("events", [NewRecord::new(1).with_key("a tombstone")]).unwrap();

    let run = ["run", "--protocol", "consumer", "--sink", "drop", "--max-age", "100ms", "--until-idle", "1s"];
    let output = demo(&[&run[..], &["--summary", "json", "--group", "g"], &at].concat());
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let summary: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    let number = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(number("records"), 3_001);
    assert_eq!(number("rows") + number("dead_letters"), 3_001);
    assert_eq!(number("dead_letters"), number("dead_letters_delivered"));
    let dead_letters =
        output.stderr.lines().filter(|line| line.starts_with("{\"topic\":\"events\"")).count() as u64;
    assert_eq!(dead_letters, number("dead_letters"), "{}", output.stderr);
    assert!(output.stderr.contains("tombstone") && output.stderr.contains("not JSON"), "{}", output.stderr);
    assert_eq!(cluster.committed("g", "events").unwrap(), cluster.end_offsets("events").unwrap());
}

#[test]
fn a_stalled_sink_commits_nothing_and_the_error_names_the_partition() {
    let cluster = EmbeddedCluster::start().unwrap();
    cluster.create_topic("events", 1).unwrap();
    cluster.produce("events", (0..10).map(|_| NewRecord::new(0).with_payload("{}"))).unwrap();
    let stalled =
        ["--sink", "stalled", "--errors", "drop", "--max-age", "10ms", "--attempt-timeout", "200ms"];
    let ends = ["--until-idle", "500ms", "--drain-timeout", "18s", "--protocol", "consumer"];
    let at = ["run", "--broker", cluster.bootstrap_servers(), "--topic", "events"];
    let output = demo(&[&at[..], &stalled, &ends].concat());
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    assert!(output.stderr.contains("error: "), "{}", output.stderr);
    assert!(output.stderr.contains("events/0 from offset 0"), "{}", output.stderr);
    assert!(cluster.committed("test-map-reduce-consumer", "events").unwrap().is_empty());
}

#[test]
fn an_unreachable_broker_is_named() {
    let run = ["run", "--sink", "drop", "--connect-timeout", "500ms"];
    for command in [&run[..], &["produce", "--count", "1"]] {
        let output = demo(&[command, &["--broker", "127.0.0.1:9"]].concat());
        assert_eq!(output.code, Some(1), "{command:?}: {}", output.stderr);
        let error = output.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(error.contains("no broker reachable at 127.0.0.1:9") && error.contains("check"), "{error}");
        assert!(output.stderr.lines().count() < 10, "errors repeat themselves: {}", output.stderr);
    }
}

#[test]
fn an_unknown_topic_is_named() {
    let cluster = EmbeddedCluster::start().unwrap();
    let at = ["--broker", cluster.bootstrap_servers(), "--topic", "nowhere"];
    let output = demo(&[&["run", "--sink", "drop"], &at[..]].concat());
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    assert!(output.stderr.contains("error: topic \"nowhere\" does not exist"), "{}", output.stderr);
}

#[test]
fn an_unreachable_clickhouse_is_named() {
    for command in [&["create-table"][..], &["run", "--connect-timeout", "500ms"]] {
        let output = demo(&[command, &["--clickhouse", "127.0.0.1:9"]].concat());
        assert_eq!(output.code, Some(1), "{command:?}: {}", output.stderr);
        let error = output.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
        let reason = "refused"; // words: quoted
        assert!(error.contains("127.0.0.1:9") && error.contains(reason), "{error}");
    }
}

#[test]
fn wrong_flags_end_with_code_2() {
    for args in [
        &["run", "--max-age", "soon"][..],
        &["run", "--protocol", "raft"],
        &["produce", "--malformed-ratio", "2"],
        &["--messages", "0"],
        &["check-everything"],
        &["--partitions", "3", "produce"],
        &["verify"],
    ] {
        let output = demo(args);
        assert_eq!(output.code, Some(2), "{args:?}: {}", output.stderr);
        assert!(output.stderr.starts_with("error: ") && output.stdout.is_empty(), "{}", output.stderr);
    }
}

#[test]
fn rejected_settings_are_named() {
    let output = demo(&["run", "--drain-timeout", "5s"]);
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("drain_timeout is 5s"), "{}", output.stderr);
    let output = demo(&["run", "--sink", "drop", "--set", "fetch.min.bytess=1"]);
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("fetch.min.bytess"), "{}", output.stderr);
}

#[test]
fn help_names_commands_flags_and_defaults() {
    let help = demo(&["--help"]).stdout;
    // A line may break between two words.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in ["run", "produce", "create-table", "kmr verify", "--messages", "--malformed-ratio"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let help = demo(&["run", "--help"]).stdout;
    for word in [
        "127.0.0.1:9092",
        "127.0.0.1:8123",
        "test-map-reduce-consumer",
        "32768",
        "4s",
        "KMR_KAFKA_PASSWORD",
        "KMR_STATUS",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
}
