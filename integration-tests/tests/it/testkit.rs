//! kmr-testkit: what it returns, and each error that can be provoked.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use integration_tests::{ClickHouse, Deadline, Kafka, Message, test_name, unique};
use kmr_testkit::ErrorKind;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

const MISSING: &str = "127.0.0.1:1/kmr-testkit/missing:1.0";

#[test]
fn the_example_is_that_of_the_readme() {
    let example = include_str!("testkit_example.rs");
    let (_doc, code) = example.split_once("\n\n").expect("a comment and the code");
    let readme = include_str!("../../../crates/kmr-testkit/README.md");
    assert!(readme.contains(code), "testkit_example.rs differs from the README of kmr-testkit");
}

#[tokio::test]
async fn records_are_read_back_as_they_were_produced() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 2).await?;
    let first = Message::new("a").key("k").header("h", "1").null_header("n").timestamp(7).partition(1);
    topic.produce([first, Message::tombstone("k").partition(1)]).await?;
    let records = topic.read_all().await?;
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].partition, records[0].offset, records[0].timestamp), (1, 0, Some(7)));
    assert_eq!(
        (records[0].key.as_deref(), records[0].payload.as_deref()),
        (Some(&b"k"[..]), Some(&b"a"[..]))
    );
    assert_eq!(records[0].headers, [("h".to_owned(), Some(b"1".to_vec())), ("n".to_owned(), None)]);
    assert_eq!((records[1].offset, records[1].payload.as_deref()), (1, None));
    Ok(())
}

#[tokio::test]
async fn rows_are_waited_for_and_read() -> Result<()> {
    let database = ClickHouse::shared().await?.database(test_name!()).await?;
    database.exec("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n").await?;
    database.exec("INSERT INTO t SELECT number FROM numbers(3)").await?;
    assert_eq!(database.wait_for_rows("t", 2, Deadline::seconds(10)).await?, 3);
    assert_eq!(database.rows::<u64>("SELECT n FROM t ORDER BY n").await?, [0, 1, 2]);

    let brief = Deadline::after(Duration::from_millis(500));
    let error = database.wait_for_rows("t", 4, brief).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let text = format!("not within 500ms: table {}.t has 4 rows; instead: 3 rows", database.name());
    assert_eq!(error.to_string(), text);

    let error = database.wait_for_rows("missing", 1, Deadline::seconds(10)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Condition);
    assert!(format!("{error:?}").contains("UNKNOWN_TABLE"), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_group_that_has_not_committed_all_is_named_with_its_offsets() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 3).await?;
    topic.produce((0..10).map(|n| Message::new("x").partition(n % 2))).await?;
    let group = unique(test_name!());
    let (config, name, committer) = (topic.kafka().client_config(), topic.name().to_owned(), group.clone());
    let commit = move |offset: i64| -> Result<()> {
        let consumer: BaseConsumer = config.clone().set("group.id", &committer).create()?;
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&name, 0, Offset::Offset(offset))?;
        offsets.add_partition_offset(&name, 1, Offset::Offset(5))?;
        Ok(consumer.commit(&offsets, CommitMode::Sync)?)
    };
    let both = commit.clone();
    tokio::task::spawn_blocking(move || commit(2)).await??;
    let error = topic.wait_until_committed(&group, Deadline::seconds(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().ends_with("instead: partition 0 at 2 of 5"), "{error}");
    tokio::task::spawn_blocking(move || both(5)).await??;
    Ok(topic.wait_until_committed(&group, Deadline::seconds(30)).await?)
}

#[tokio::test]
async fn a_broker_has_settings_of_the_tests_own() -> Result<()> {
    let kafka = Kafka::builder().setting("auto.create.topics.enable", "true").start().await?;
    let name = unique(test_name!());
    kafka.produce(&name, [Message::new("x")]).await?;
    assert_eq!(kafka.read_all(&name).await?.len(), 1, "the first message created the topic");
    Ok(())
}

#[tokio::test]
async fn an_image_that_does_not_exist_is_an_error_with_the_remedy() -> Result<()> {
    let error = ClickHouse::builder().image(MISSING).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoImage);
    let text = error.to_string();
    ensure!(text.contains(MISSING) && text.contains("cargo xtask services prepare"), "{text}");
    let error = Kafka::builder().image("kafka").start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSetting);
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_that_names_it() -> Result<()> {
    let holder = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = holder.local_addr()?.port();
    let error = Kafka::builder().port(port).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PortTaken);
    ensure!(error.to_string().contains(&format!("port {port} of 127.0.0.1 is taken")), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_ready_in_time_is_an_error_with_its_log() -> Result<()> {
    let error = ClickHouse::builder().start_timeout(Duration::ZERO).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady);
    let text = error.to_string();
    ensure!(text.contains("no answer within 0ns; its log (whole: "), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_ends_at_its_start_is_an_error_with_its_log() -> Result<()> {
    let started = std::time::Instant::now();
    let broken = Kafka::builder().setting("process.roles", "conductor");
    let error = broken.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady);
    let text = error.to_string();
    ensure!(text.contains("its container has ended with exit status 1"), "{text}");
    ensure!(text.contains("conductor"), "the log names the value: {text}");
    ensure!(started.elapsed() < Duration::from_secs(85), "the end is detected before the timeout");
    Ok(())
}

/// Runs a part of this test in a process of its own, because an engine is chosen once per process.
#[tokio::test]
async fn an_engine_that_does_not_answer_is_an_error_with_the_remedy() -> Result<()> {
    const CHILD: &str = "KMR_TESTKIT_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let error = Kafka::builder().start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoEngine);
        return Err(error.into());
    }
    let socket = "unix:///kmr-testkit/missing.sock";
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["--exact", &format!("testkit::{}", test_name!()), "--nocapture"]);
    child.env(CHILD, "1").env("DOCKER_HOST", socket);
    let output = tokio::task::spawn_blocking(move || child.output()).await??;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "no engine answers at {socket}");
    for part in ["no container engine answers at DOCKER_HOST=", socket, "cargo xtask services prepare"] {
        ensure!(text.contains(part), "{part} is missing in: {text}");
    }
    Ok(())
}
