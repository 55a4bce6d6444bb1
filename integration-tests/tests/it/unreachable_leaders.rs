//! Brokers that advertise addresses which cannot be reached from here.

use std::time::Duration;

use anyhow::{Context as _, Result};
use integration_tests::{Deadline, Kafka, slow_responses, test_name, unique, with_false_listener};
use kmr_core::{ClientConfig, Consumer, Error, Strategy, error_chain};
use kmr_sinks::MemoryWriter;
use serde_json::Value;

use crate::in_process::run;
use crate::programs::kmr;

/// A port of the loopback address where nothing listens, outside the range of the tests' servers.
const NOTHING: u16 = 9;

/// How the start of a consumer of `topics` ends.
async fn start_error(bootstrap: &str, group: &str, topics: &str) -> Result<Error> {
    let config = ClientConfig::new().set("bootstrap.servers", bootstrap).set("group.id", group);
    let strategy = Strategy::new()
        .map(|record: &kmr_core::Record<'_>| Ok::<_, std::convert::Infallible>(record.offset()))
        .reduce(MemoryWriter::new());
    let consumer = Consumer::builder()
        .topics([topics])
        .config(config)
        .connect_timeout(Duration::from_secs(5))
        .shutdown_signal(std::future::pending())
        .strategy(strategy);
    let ended = run(consumer)?.ended(Deadline::seconds(60)).await?;
    ended.err().context("the consumer ends without an error")
}

/// The checks of `kmr` by name: state and text.
async fn checks(command: &str, bootstrap: &str, topic: &str, group: &str) -> Result<Value> {
    let at = ["--broker", bootstrap, "--topic", topic, "--group", group, "--clickhouse", "127.0.0.1:9"];
    let (code, output) = kmr(&[&[command, "--json"], &at[..]].concat()).await?;
    assert_eq!(code, Some(1), "{output}");
    let line = output.lines().find(|line| line.starts_with('{')).with_context(|| output.clone())?;
    Ok(serde_json::from_str(line)?)
}

/// The start of a consumer, and the checks, name the address that brokers at `bootstrap` advertise.
async fn assert_named(kafka: &Kafka, bootstrap: &str, patterns: &[&str]) -> Result<()> {
    let topic = kafka.create_topic(test_name!(), 2).await?;
    let group = unique(test_name!());
    let advertised = format!("127.0.0.1:{NOTHING}");
    for topics in [&[topic.name()], patterns].concat() {
        let text = error_chain(&start_error(bootstrap, &group, topics).await?);
        for part in [bootstrap, &advertised, "advertised.listeners"] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        let names_leaders = text.contains("no leader of topic");
        // A pattern without a topic has no leaders, so the coordinator is requested, once the
        // client has received metadata.
        let is_right = names_leaders || (topics.starts_with("^no") && text.contains("the coordinator"));
        assert!(is_right, "{topics}: {text}");
    }
    for command in ["check", "doctor"] {
        let json = checks(command, bootstrap, topic.name(), &group).await?;
        for name in ["topic", "group coordinator"] {
            let all = json["checks"].as_array().context("no checks")?;
            let check = all.iter().find(|check| check["check"] == name).context(name)?;
            let text = format!("{} {}", check["found"], check["remedy"]);
            assert_eq!(check["state"], "fail", "{command}: {check}");
            for part in [&advertised, "advertised.listeners"] {
                assert!(text.contains(part), "{command}: {part:?} is not in {text}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn addresses_that_brokers_advertise_and_that_do_not_answer_are_named() -> Result<()> {
    let (kafka, bootstrap) = with_false_listener(NOTHING).await?;
    let topic = kafka.create_topic(test_name!(), 1).await?;
    let pattern = format!("^{}", topic.name());
    assert_named(&kafka, &bootstrap, &[&pattern, "^no-topic-of-this-name"]).await?;
    // librdkafka drops the bootstrap server with its first answer, and the requests that wait
    // there.
    let slow = slow_responses(&bootstrap, Duration::from_millis(500)).await?;
    assert_named(&kafka, &slow, &[]).await
}
