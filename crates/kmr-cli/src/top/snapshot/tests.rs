//! The plain text, the JSON and the exit code.

use super::*;
use crate::top::fixture;

#[test]
fn the_text_has_everything_and_no_escapes() {
    let text = text(&fixture::app(3).consumers);
    for expected in [
        "late         events-to-clickhouse pod-1  10.0.0.0:9464      1,000  100,180  92 s     85%            41",
        "unreachable                              10.0.0.1:9464          –        –     –       –             –",
        "events-to-clickhouse pod-1 at 10.0.0.0:9464: late",
        "  up 83 min, 1,000 records/s, 1,000 rows/s, lag 100,180, memory 163 MiB of 192 MiB",
        "  fetch [15%] map [19%] reduce 1 (4 of 4 deliveries); failed records [0%] reduce_err (0 of 4 deliveries); \
         1,234 commits",
        "late     events/2   100,760      95 s        250   92 s            900,000  the sink of reduce 1",
        "    reduce 1, attempt 7, 91 s: code 252: too many parts",
        "    09:00:03 7 × delivery failed: code 252: too many parts (events/2 offset 123,456 reduce 1)",
        "    08:59:58 41 × invalid digit found in string",
        "    08:59:03 1 × 4 partitions assigned in 12 ms (reduce 1)",
        "at 10.0.0.1:9464: unreachable\n  unreachable: Connection refused",
    ] {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text}");
}

#[test]
fn the_json_has_the_statuses_as_they_are() {
    let json = json(&fixture::app(2).consumers);
    assert_eq!(json["consumers"][0]["status"], fixture::status(3));
    assert_eq!(json["consumers"][0]["records_per_second"], 1_000.0);
    assert_eq!(
        (&json["consumers"][1]["status"], &json["consumers"][0]["problem"]),
        (&Value::Null, &Value::Null)
    );
    assert!(json["consumers"][1]["problem"].as_str().unwrap().starts_with("unreachable: Connection refused"));
}

#[test]
fn the_exit_code_counts_servers_without_a_status() {
    let code = |consumers: &[Consumer]| format!("{:?}", exit_code(consumers));
    let all = fixture::app(3).consumers;
    assert_eq!(code(&all), format!("{:?}", ExitCode::from(3)));
    assert_eq!(code(&all[..1]), format!("{:?}", ExitCode::SUCCESS));
    assert_eq!(code(&all[1..2]), format!("{:?}", ExitCode::from(1)));
}
