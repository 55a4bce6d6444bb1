//! Runs every example as a user would: each ends by itself, succeeds and prints its result.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which may fail in any way")]

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// An example that runs longer has failed. One takes a second or two.
const DEADLINE: Duration = Duration::from_secs(60);

/// What an example printed.
struct Output {
    stdout: String,
    stderr: String,
}

/// The path of an example, which cargo builds beside the tests.
fn binary(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop(); // this test
    path.pop(); // deps
    path.push("examples");
    path.push(name);
    assert!(
        path.exists(),
        "{} is not built: `cargo test -p kmr-examples` builds it; with --test {}, run cargo build -p kmr-examples --examples first",
        path.display(),
        env!("CARGO_CRATE_NAME")
    );
    path
}

fn run(name: &str) -> Output {
    let child = Command::new(binary(name)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let read = |mut stream: Box<dyn Read + Send>| {
        let (text, received) = mpsc::channel();
        std::thread::spawn(move || {
            let mut all = String::new();
            stream.read_to_string(&mut all).unwrap();
            let _ = text.send(all);
        });
        received
    };
    let stdout = read(Box::new(child.stdout.take().unwrap()));
    let stderr = read(Box::new(child.stderr.take().unwrap()));
    // The streams end when the process does.
    let Ok(stdout) = stdout.recv_timeout(DEADLINE) else {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("{name} did not end within {DEADLINE:?}: {:?}", stderr.recv());
    };
    let stderr = stderr.recv_timeout(DEADLINE).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{name}: {status}\n{stdout}\n{stderr}");
    Output { stdout, stderr }
}

#[test]
fn minimal() {
    let output = run("minimal");
    assert!(output.stdout.contains("999 numbers arrived"), "{}", output.stdout);
    assert!(output.stdout.contains("dead letter: numbers/1 offset 3 failed at map 1"), "{}", output.stdout);
}

#[test]
fn by_hand() {
    assert!(run("by_hand").stdout.contains("brooks: 6 characters"));
}

#[test]
fn async_look_up() {
    let stdout = run("async_look_up").stdout;
    assert!(stdout.contains("up to 4 at once") && stdout.contains("10 dead letters"), "{stdout}");
}

#[test]
fn custom_reducer() {
    let stdout = run("custom_reducer").stdout;
    assert!(stdout.contains("at attempt 2") && stdout.contains("the ledger: {\"even\": 62250"), "{stdout}");
}

#[test]
fn per_minute() {
    let stdout = run("per_minute").stdout;
    assert!(stdout.contains("30000 visits are") && stdout.contains("slowest: 999"), "{stdout}");
}

#[test]
fn several_topics() {
    assert!(run("several_topics").stdout.contains("30 orders, 20 of them shipped"));
}

#[test]
fn errors_to_stream() {
    let output = run("errors_to_stream");
    assert!(output.stdout.contains("197 readings arrived, 3 dead letters"), "{}", output.stdout);
    for (place, reason) in [("map 1", "EOF"), ("map 2", "below absolute zero"), ("reduce 1", "needs a name")]
    {
        let found = output
            .stderr
            .lines()
            .any(|line| line.starts_with('{') && line.contains(place) && line.contains(reason));
        assert!(found, "{place}: {}", output.stderr);
    }
}

/// A delivery is a trace of its own, with a link to the producer's span of each record.
#[test]
fn open_telemetry() {
    let stdout = run("open_telemetry").stdout;
    let span_of = |name: &str| {
        let mut spans =
            stdout.split("Span #").filter(|span| span.contains(&format!("Name         : {name}\n")));
        spans.next().unwrap_or_else(|| panic!("{name}: {stdout}"))
    };
    let delivery = span_of("kmr.deliver");
    let link = |n: u64| format!("TraceId: {:032x}\n\tSpanId : {n:016x}", 0xace_0000 + n);
    assert!((1..=3).all(|n| stdout.contains(&link(n))), "{delivery}");
    assert!(delivery.contains("Links:") && delivery.contains("None (root span)"), "{delivery}");
    let price = span_of("price an order");
    assert!(price.contains("ParentSpanId : 000000000000000"), "below the producer's span: {price}");
    for name in ["kmr.fetch", "kmr.map", "kmr.reduce", "kmr.commit", "kmr.rebalance"] {
        span_of(name);
    }
    assert!(stdout.contains("traces of the prices: [ace0001, ace0002, ace0003]"), "{stdout}");
}

#[test]
fn dead_letter_topic() {
    let stdout = run("dead_letter_topic").stdout;
    assert!(stdout.contains("readings-dead: \"68F\" of readings/0 offset 10, map 1, attempt 1"), "{stdout}");
}

#[test]
fn kafka_to_kafka() {
    assert!(run("kafka_to_kafka").stdout.contains("28 small orders, 62 large ones"));
}

#[test]
fn status_page() {
    let stdout = run("status_page").stdout;
    for path in ["/", "/livez", "/readyz", "/status", "/metrics"] {
        assert!(stdout.contains(&format!("{path}: HTTP/1.1 200 OK")), "{path}: {stdout}");
    }
    assert!(stdout.contains("after the end: HTTP/1.1 503 Service Unavailable"), "{stdout}");
}

#[test]
fn simulated() {
    let stdout = run("simulated").stdout;
    assert!(stdout.contains("1000 seeds, each run twice") && stdout.contains("no rule broken"), "{stdout}");
}
