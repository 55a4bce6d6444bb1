//! `kmr lag` on a real Kafka: groups of both protocols, and what it does not know.

use std::process::Command;

use anyhow::{Context as _, Result};
use integration_tests::{
    Deadline, Kafka, Message, Process, SecuredKafka, Signal, Topic, User, test_name, unique, wait_until,
};
use kmr_core::{IntoPipeline as _, Strategy};
use kmr_sinks::MemoryWriter;
use serde_json::{Value, json};

use crate::in_process::{consumer_with, run};
use crate::kafka_sink::{QUICK, number};
use crate::programs::{kmr, kmr_program, kmr_with};

/// Exit code and JSON of `kmr lag`.
async fn lag(topic: &Topic, group: &str, more: &[&str]) -> Result<(Option<i32>, Value)> {
    let at = ["lag", "--broker", topic.kafka().bootstrap(), "--group", group, "--json"];
    let (code, output) = kmr(&[&at[..], more].concat()).await?;
    let json = serde_json::from_str(&output).with_context(|| output.clone())?;
    Ok((code, json))
}

fn numbers(count: u64) -> impl Iterator<Item = Message> + Send + 'static {
    (0..count).map(|n| Message::new(n.to_string()).partition((n % 2) as i32))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_names_the_members_of_groups_of_both_protocols() -> Result<()> {
    for protocol in ["classic", "consumer"] {
        let topic = Kafka::shared().await?.create_topic(test_name!(), 2).await?;
        topic.produce(numbers(100)).await?;
        let group = unique(test_name!());
        let strategy = Strategy::new().map(number).reduce(MemoryWriter::new().max_age(QUICK)).into_pipeline();
        let settings = |config: kmr_core::ClientConfig| {
            config.set("group.protocol", protocol).set("client.id", "events-reader")
        };
        let mut running = run(consumer_with(&topic, &group, strategy, settings))?;
        running.all_committed(&topic, &group, Deadline::seconds(60)).await?;

        let (code, live) = lag(&topic, &group, &[]).await?;
        assert_eq!((code, &live["lag"], &live["complete"]), (Some(0), &json!(0), &json!(true)), "{live}");
        assert_eq!((&live["state"], &live["protocol"]), (&json!("Stable"), &json!(protocol)), "{live}");
        let member = &live["members"][0];
        assert_eq!(
            (&member["client_id"], &member["partitions"]),
            (&json!("events-reader"), &json!(2)),
            "{live}"
        );
        for partition in 0..2 {
            let one = &live["partitions"][partition];
            assert_eq!((&one["committed"], &one["log_end"]), (&json!(50), &json!(50)), "{live}");
            assert_eq!(
                (&one["owner"], &one["topic"]),
                (&member["member_id"], &json!(topic.name())),
                "{live}"
            );
        }

        running.stop(Deadline::seconds(30)).await?;
        topic.produce(numbers(10)).await?;
        let (code, stopped) = lag(&topic, &group, &[]).await?;
        assert_eq!(
            (code, &stopped["lag"], &stopped["members"]),
            (Some(0), &json!(10), &json!([])),
            "{stopped}"
        );
        assert_eq!(
            (&stopped["state"], &stopped["partitions"][0]["lag"]),
            (&json!("Empty"), &json!(5)),
            "{stopped}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_consumer_can_read_and_what_does_not_exist_are_named() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 2).await?;
    topic.produce(numbers(100)).await?;
    let (group, broker) = (topic.name(), topic.kafka().bootstrap());
    let (code, output) = kmr(&["lag", "--broker", broker, "--group", group]).await?;
    assert!(code == Some(1) && output.contains("does not exist at"), "{output}");
    let reset = ["offsets", "reset", "--broker", broker, "--topic", group, "--group", group, "--to", "0=20"];
    assert_eq!(kmr(&reset).await?.0, Some(0));

    let transactions = topic.kafka().transactions(&unique(test_name!())).await?;
    transactions.leave_open(&topic, (0..10).map(|_| Message::new("1").partition(0))).await?;
    let (code, output) = kmr(&["lag", "--broker", broker, "--group", group]).await?;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("10 offsets from 50 on are held back by an open transaction"), "{output}");
    assert!(output.contains("│         0 ┆        20 ┆ 0–60 ┆  40 ┆     – │"), "{output}");
    assert!(output.contains("│         1 ┆      none ┆ 0–50 ┆   – ┆     – │"), "{output}");
    assert!(output.contains("1 partition without a committed offset"), "{output}");
    assert!(!output.contains('\u{1b}'), "no colours without a terminal: {output}");

    let (code, json) = lag(&topic, group, &["--topic", "no-such-topic"]).await?;
    assert_eq!((code, &json["partitions"]), (Some(3), &json!([])), "{json}");
    assert!(json["unknown_topics"]["no-such-topic"].is_string(), "{json}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watching_repeats_until_it_is_interrupted() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 1).await?;
    let (group, broker) = (topic.name(), topic.kafka().bootstrap());
    topic.produce([Message::new("1").partition(0)]).await?;
    let reset = ["offsets", "reset", "--broker", broker, "--topic", group, "--group", group, "--to", "0=0"];
    assert_eq!(kmr(&reset).await?.0, Some(0));
    let mut command = Command::new(kmr_program().await?);
    command.args(["lag", "--broker", broker, "--group", group, "--watch", "1", "--json"]);
    let mut watching = Process::spawn(command)?;
    let blocks = |process: &Process| -> Vec<Value> {
        process.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    wait_until(Deadline::seconds(30), "the first lag", async || Ok(!blocks(&watching).is_empty())).await?;
    topic.produce([Message::new("2").partition(0)]).await?;
    let seen = async || Ok(blocks(&watching).last().is_some_and(|last| last["lag"] == 2));
    wait_until(Deadline::seconds(30), "the second record counts", seen).await?;
    assert_eq!(blocks(&watching)[0]["lag"], 1);
    let status = watching.end(Signal::Interrupt, Deadline::seconds(30)).await?;
    assert_eq!(status.code(), Some(0), "{}", watching.stderr());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_permissions_are_named() -> Result<()> {
    let kafka = SecuredKafka::shared().await?;
    let login = "security.protocol=SASL_PLAINTEXT;sasl.mechanism=SCRAM-SHA-512";
    let lag_as = async |user: User, group: &str| {
        let variables = [("KMR_KAFKA_USER", user.name), ("KMR_KAFKA_PASSWORD", user.password)];
        kmr_with(&["lag", "--broker", kafka.bootstrap(), "--set", login, "--group", group], &variables).await
    };
    let secret = unique(test_name!());
    let (code, output) = lag_as(SecuredKafka::ALLOWED, &secret).await?;
    assert!(code == Some(1) && output.contains("no permission to describe group"), "{output}");
    let allowed = format!("{}{secret}", SecuredKafka::PREFIX);
    let (code, output) = lag_as(SecuredKafka::ALLOWED, &allowed).await?;
    assert!(code == Some(1) && output.contains("does not exist at"), "{output}");
    Ok(())
}
