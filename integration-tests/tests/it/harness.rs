//! Tests of the harness itself, on which all other tests depend.

use std::process::Command;

use anyhow::Result;
use integration_tests::{
    ClickHouse, Deadline, Kafka, Message, Process, SecuredKafka, ServerConfig, Signal, TopicSpec, records,
    test_name, unique, wait_until,
};
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Headers as _;
use rdkafka::{Offset, TopicPartitionList};

#[tokio::test]
async fn produced_records_are_in_the_log_and_commits_are_visible() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 4).await?;
    let count = records(20_000, 1_000_000);
    let produced =
        topic.produce((0..count).map(|n| Message::new(n.to_string()).partition((n % 4) as i32))).await?;
    assert_eq!(produced.total(), count);
    assert_eq!(topic.end_offsets().await?.values().sum::<i64>(), count as i64);

    let group = unique(test_name!());
    assert!(topic.committed(&group).await?.is_empty());
    assert_eq!(topic.lag(&group).await?, count as i64);
    let config = topic.kafka().client_config();
    let name = topic.name().to_owned();
    let committer = group.clone();
    tokio::task::spawn_blocking(move || -> Result<()> {
        let consumer: BaseConsumer = config.clone().set("group.id", &committer).create()?;
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&name, 2, Offset::Offset(7))?;
        Ok(consumer.commit(&offsets, CommitMode::Sync)?)
    })
    .await??;
    assert_eq!(topic.committed(&group).await?.get(&2), Some(&7));
    assert_eq!(topic.lag(&group).await?, count as i64 - 7);
    Ok(())
}

#[tokio::test]
async fn keys_headers_tombstones_and_large_messages_arrive_unchanged() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 1).await?;
    let odd = Message::new("").key("").header("h", "1").header("h", "2").null_header("n").timestamp(1);
    topic.produce([odd, Message::tombstone("gone"), Message::of_size(5_000_000)]).await?;

    let config = topic.kafka().client_config();
    let name = topic.name().to_owned();
    let seen = tokio::task::spawn_blocking(move || -> Result<Vec<rdkafka::message::OwnedMessage>> {
        let consumer: BaseConsumer = config.clone().set("group.id", "none").create()?;
        let mut start = TopicPartitionList::new();
        start.add_partition_offset(&name, 0, Offset::Beginning)?;
        consumer.assign(&start)?;
        consumer.iter().take(3).map(|message| Ok(message?.detach())).collect()
    });
    let seen = Deadline::seconds(30).cap("three messages", seen).await???;
    assert_eq!((seen[0].key(), seen[0].payload()), (Some(&b""[..]), Some(&b""[..])));
    assert_eq!(seen[0].timestamp().to_millis(), Some(1));
    let headers = seen[0].headers().expect("headers");
    let headers: Vec<_> = headers.iter().map(|header| (header.key, header.value)).collect();
    assert_eq!(headers, [("h", Some(&b"1"[..])), ("h", Some(&b"2"[..])), ("n", None)]);
    assert_eq!((seen[1].key(), seen[1].payload()), (Some(&b"gone"[..]), None));
    assert_eq!(seen[2].payload().map(<[u8]>::len), Some(5_000_000));
    Ok(())
}

#[tokio::test]
async fn aborted_transactions_leave_gaps() -> Result<()> {
    let topic = Kafka::shared().await?.create_topic(test_name!(), 1).await?;
    let transactions = topic.kafka().transactions(&unique(test_name!())).await?;
    transactions.commit(&topic, vec![Message::new("kept"); 10]).await?;
    transactions.abort(&topic, vec![Message::new("aborted"); 10]).await?;
    transactions.commit(&topic, vec![Message::new("kept"); 10]).await?;

    // Ten records and a marker, three times.
    assert_eq!(topic.end_offsets().await?, [(0, 33)].into());
    let readable: Vec<i64> = (0..10).chain(22..32).collect();
    assert_eq!(topic.readable_offsets().await?, [(0, readable)].into());
    Ok(())
}

#[tokio::test]
async fn compaction_leaves_gaps() -> Result<()> {
    let spec = TopicSpec::partitions(1).compacted();
    let topic = Kafka::shared().await?.create_topic(test_name!(), spec).await?;
    let versions = (0..1000).map(|n| Message::new(n.to_string()).key((n % 10).to_string()));
    topic.produce(versions.collect::<Vec<_>>()).await?;
    wait_until(Deadline::seconds(60), "old versions are compacted", async || {
        // The next record closes a segment, and the active segment is never compacted.
        topic.produce([Message::new("last").key("last")]).await?;
        Ok(topic.readable_offsets().await?[&0].len() < 500)
    })
    .await
}

#[tokio::test]
async fn each_test_has_a_database_of_its_own() -> Result<()> {
    let server = ClickHouse::shared().await?;
    let (one, two) = (server.database(test_name!()).await?, server.database(test_name!()).await?);
    one.exec("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n").await?;
    one.exec("INSERT INTO t SELECT number FROM numbers(100)").await?;
    assert_eq!(one.count("t").await?, 100);
    assert_eq!(one.number("SELECT sum(n) FROM t").await?, 4950);
    let error = two.count("t").await.expect_err("a table of another test's database is not visible");
    assert!(format!("{error:#}").contains("UNKNOWN_TABLE"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn a_killed_clickhouse_restarts_at_its_address_with_its_data() -> Result<()> {
    let server = ClickHouse::own().await?;
    let database = server.database(test_name!()).await?;
    database.exec("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n").await?;
    database.exec("INSERT INTO t SELECT number FROM numbers(100)").await?;
    server.kill().await?;
    assert!(database.count("t").await.is_err(), "a killed server does not answer");
    server.start().await?;
    assert_eq!(database.count("t").await?, 100);
    server.stop().await?;
    server.start().await?;
    assert_eq!(database.count("t").await?, 100);
    Ok(())
}

#[tokio::test]
async fn a_clickhouse_has_shards_and_users_of_the_tests_own() -> Result<()> {
    let shard = ClickHouse::builder().config(ServerConfig::default()).start().await?;
    let config = ServerConfig::default()
        .cluster("own", &["127.0.0.1", &shard.container_address().await?])
        .cluster("other", &["127.0.0.1"])
        .user("reader", "<readonly>1</readonly>");
    let server = ClickHouse::builder().config(config).start().await?;
    shard.client().query("CREATE DATABASE shared ENGINE = Atomic").execute().await?;
    shard.client().query("CREATE VIEW shared.v AS SELECT 41 AS n").execute().await?;
    server.client().query("CREATE DATABASE shared ENGINE = Atomic").execute().await?;
    server.client().query("CREATE VIEW shared.v AS SELECT 1 AS n").execute().await?;
    let sum = "SELECT toUInt64(sum(n)) FROM cluster('own', shared, v)";
    assert_eq!(server.client().query(sum).fetch_one::<u64>().await?, 42, "both shards answer");
    let reader = server.client().with_user("reader");
    let error = reader.query("CREATE DATABASE forbidden").execute().await.unwrap_err().to_string();
    assert!(error.contains("readonly"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_stopped_broker_restarts_at_its_address_with_its_records() -> Result<()> {
    let kafka = Kafka::own().await?;
    let topic = kafka.create_topic(test_name!(), 2).await?;
    topic.produce(vec![Message::new("x"); 100]).await?;
    kafka.stop().await?;
    kafka.start().await?;
    assert_eq!(topic.end_offsets().await?.values().sum::<i64>(), 100);
    topic.produce(vec![Message::new("x"); 100]).await?;
    kafka.kill().await?;
    kafka.start().await?;
    wait_until(Deadline::seconds(30), "all records are in the log", async || {
        Ok(topic.end_offsets().await.is_ok_and(|ends| ends.values().sum::<i64>() == 200))
    })
    .await
}

#[tokio::test]
async fn the_secured_broker_enforces_permissions_by_user() -> Result<()> {
    let kafka = SecuredKafka::shared().await?;
    let allowed = kafka.admin().create_topic(&format!("{}topic", SecuredKafka::PREFIX), 1).await?;
    let other = kafka.admin().create_topic("other", 1).await?;
    let visible = async |user, topic: &str| {
        let (config, topic) = (kafka.client_config(user), topic.to_owned());
        tokio::task::spawn_blocking(move || -> Result<bool> {
            let consumer: BaseConsumer = config.create()?;
            let metadata = consumer.fetch_metadata(Some(&topic), std::time::Duration::from_secs(10))?;
            Ok(metadata.topics()[0].error().is_none())
        })
        .await?
    };
    assert!(visible(SecuredKafka::ADMIN, &other).await?);
    assert!(visible(SecuredKafka::ALLOWED, &allowed).await?);
    assert!(!visible(SecuredKafka::ALLOWED, &other).await?);
    assert!(!visible(SecuredKafka::POWERLESS, &allowed).await?);

    let stranger = integration_tests::User { password: "wrong", ..SecuredKafka::ADMIN };
    let error = visible(stranger, &other).await.expect_err("the broker rejects a wrong password");
    let code = error.downcast_ref::<KafkaError>().and_then(KafkaError::rdkafka_error_code);
    assert_eq!(code, Some(RDKafkaErrorCode::BrokerTransportFailure), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn kafkas_own_tools_run_inside_the_container() -> Result<()> {
    // The secured broker is always in a container, unlike the shared one.
    let topic = SecuredKafka::shared().await?.admin().create_topic(test_name!(), 3).await?;
    let described = topic.kafka().tool("kafka-topics", &["--describe", "--topic", topic.name()]).await?;
    assert!(described.contains("PartitionCount: 3"), "{described}");
    Ok(())
}

#[tokio::test]
async fn a_child_process_is_watched_signalled_and_measured() -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", "trap 'echo bye; exit 3' TERM; echo out; echo ready >&2; while :; do :; done"]);
    let mut child = Process::spawn(command)?;
    child.wait_for_line(Deadline::seconds(10), "ready").await?;
    assert!(child.resident_bytes()? > 100_000);
    assert!(child.peak_resident_bytes()? >= child.resident_bytes()?);
    wait_until(Deadline::seconds(10), "the child has used processor time", async || {
        Ok(!child.cpu_time()?.is_zero())
    })
    .await?;
    let status = child.end(Signal::Terminate, Deadline::seconds(10)).await?;
    assert_eq!(status.code(), Some(3));
    assert_eq!(child.stdout(), "out\nbye\n");
    assert!(child.signal(Signal::Kill).is_err(), "no signal is sent to a process that has ended");
    Ok(())
}
