//! `kmr doctor` on real servers: each fault fails its own check, and no other.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use integration_tests::{
    ClickHouse, Database, Kafka, Message, SecuredKafka, ServerConfig, Topic, TopicSpec, User, test_name,
    unique,
};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

use crate::programs::kmr_with;

/// The result of doctor.
struct Diagnosis {
    code: Option<i32>,
    json: Value,
}

impl Diagnosis {
    fn check(&self, name: &str) -> &Value {
        let checks = self.json["checks"].as_array().map_or(&[][..], Vec::as_slice);
        checks.iter().find(|check| check["check"] == name).unwrap_or(&Value::Null)
    }

    /// The named checks have these states, all others pass.
    fn only(&self, expected: &[(&str, &str, &str)]) {
        let expected: BTreeMap<&str, (&str, &str)> =
            expected.iter().map(|(name, state, text)| (*name, (*state, *text))).collect();
        let checks = self.json["checks"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(checks.len(), 20, "{}", self.json);
        for check in checks {
            let name = check["check"].as_str().unwrap_or_default();
            let (state, text) = expected.get(name).copied().unwrap_or(("ok", ""));
            assert_eq!(check["state"], state, "{name}: {check}");
            assert!(check["found"].as_str().unwrap_or_default().contains(text), "{text:?}: {check}");
        }
        let any = |wanted: &str| expected.values().any(|(state, _)| *state == wanted);
        let code = match () {
            () if any("fail") => 1,
            () if any("unknown") => 3,
            () => 0,
        };
        assert_eq!(self.code, Some(code), "{}", self.json);
    }
}

/// The demo's table, with a deduplication window.
const TABLE: &str = "CREATE TABLE kmr_consumer_ingest (partition UInt32, offset UInt64, timestamp DateTime) \
                     ENGINE = MergeTree ORDER BY (partition, offset) SETTINGS non_replicated_deduplication_window = 1000";

/// A topic, a group and a database.
struct Scene {
    topic: Topic,
    group: String,
    database: Database,
}

impl Scene {
    async fn new(name: &str) -> Result<Self> {
        let topic = Kafka::shared().await?.create_topic(name, 2).await?;
        topic.produce((0..200).map(|n| Message::new("{}").partition(n % 2))).await?;
        let database = ClickHouse::shared().await?.database(name).await?;
        database.exec(TABLE).await?;
        Ok(Self { topic, group: unique(name), database })
    }

    async fn doctor(&self, more: &[&str]) -> Result<Diagnosis> {
        self.doctor_at(self.topic.kafka().bootstrap(), self.topic.name(), more, &[]).await
    }

    async fn doctor_at(
        &self,
        broker: &str,
        topic: &str,
        more: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Diagnosis> {
        let group = if more.contains(&"--group") { &[][..] } else { &["--group", &self.group] };
        let server = if more.contains(&"--clickhouse") {
            &[][..]
        } else {
            &["--clickhouse", self.database.server().url()]
        };
        let source = ["doctor", "--json", "--broker", broker, "--topic", topic];
        let table = match more.contains(&"--database") {
            true => Vec::new(),
            false => vec!["--database", self.database.name()],
        };
        let (code, output) =
            kmr_with(&[&source[..], group, server, &table[..], more].concat(), variables).await?;
        let line = output.lines().find(|line| line.starts_with('{')).with_context(|| output.clone())?;
        Ok(Diagnosis { code, json: serde_json::from_str(line)? })
    }

    /// A client of the group.
    fn member(&self, assignor: &str) -> Result<BaseConsumer> {
        let mut config: ClientConfig = self.topic.kafka().client_config();
        config.set("group.id", &self.group).set("partition.assignment.strategy", assignor);
        Ok(config.create()?)
    }

    async fn commit(&self, offset: i64) -> Result<()> {
        let (consumer, mut list) = (self.member("range")?, TopicPartitionList::new());
        for partition in 0..2 {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        }
        tokio::task::spawn_blocking(move || consumer.commit(&list, CommitMode::Sync))
            .await?
            .context("committing")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_checks_pass_before_the_first_run_and_after_it() -> Result<()> {
    let scene = Scene::new(test_name!()).await?;
    let first = scene.doctor(&[]).await?;
    first.only(&[("committed offsets", "ok", "none yet"), ("group", "ok", "no classic group")]);
    assert_eq!(first.json["guarantee"]["exactly_once_possible"], true, "{}", first.json);
    let apis = first.check("API versions")["found"].as_str().unwrap_or_default().to_owned();
    assert!(apis.contains("Fetch") && apis.contains("ConsumerGroupHeartbeat"), "{apis}");
    scene.commit(60).await?;
    scene.doctor(&[]).await?.only(&[("committed offsets", "ok", "lag 80")]);
    scene.doctor(&["--protocol", "consumer"]).await?.only(&[]);
    // Doctor has committed nothing.
    let committed = scene.topic.committed(&scene.group).await?;
    assert_eq!(committed, [(0, 60), (1, 60)].into());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_servers_topics_and_settings_are_named() -> Result<()> {
    let scene = Scene::new(test_name!()).await?;
    let unknown = |name| (name, "unknown", "does not respond");
    let kafka = ["group coordinator", "read the topic", "commit", "group", "committed offsets"].map(unknown);
    let no_broker = scene.doctor_at("127.0.0.1:9", &scene.topic, &[], &[]).await?;
    let topic = [
        ("broker", "fail", "127.0.0.1:9"),
        ("topic", "fail", "does not respond"),
        ("API versions", "unknown", ""),
        ("open transactions", "unknown", ""),
    ];
    no_broker.only(&[&kafka[..], &topic].concat());
    assert_eq!(no_broker.json["guarantee"]["delivery"], "none");

    let nowhere = scene.doctor_at(scene.topic.kafka().bootstrap(), "nowhere", &[], &[]).await?;
    let rest = [
        ("read the topic", "unknown", "no partition"),
        ("committed offsets", "unknown", "no partitions"),
        ("open transactions", "unknown", "no partitions"),
    ];
    nowhere.only(&[&rest[..], &[("topic", "fail", "does not exist")]].concat());

    let server =
        ["table", "insert", "engine", "deduplication", "parts", "columns", "writer", "profile"].map(unknown);
    let silent = scene.doctor(&["--clickhouse", "127.0.0.1:9"]).await?;
    let unreachable = [("ClickHouse", "fail", "127.0.0.1:9"), ("addresses", "fail", "IPv4 127.0.0.1: ")];
    silent.only(&[&server[..], &unreachable].concat());

    scene
        .doctor(&["--set", "isolation.level=read_uncommitted"])
        .await?
        .only(&[("settings", "warn", "aborted")]);
    scene.doctor(&["--drain-timeout", "5s"]).await?.only(&[("settings", "fail", "drain_timeout is 5s")]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_outside_of_the_log_and_members_of_another_protocol_are_found() -> Result<()> {
    let scene = Scene::new(test_name!()).await?;
    scene.commit(40).await?;
    let admin: AdminClient<DefaultClientContext> = scene.topic.kafka().client_config().create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&scene.topic, 0, Offset::Offset(41))?;
    admin.delete_records(&list, &AdminOptions::new()).await?;
    scene.doctor(&[]).await?.only(&[("committed offsets", "fail", "partition 0: 40 of 41")]);
    scene.commit(101).await?;
    scene.doctor(&[]).await?.only(&[("committed offsets", "fail", "partition 1: 101 of 100")]);
    scene.commit(100).await?;
    let grown = scene.topic.grow(3).await?;
    scene.doctor(&[]).await?.only(&[("committed offsets", "warn", "1 of 3 partitions have none")]);

    let member = scene.member("range")?;
    member.subscribe(&[&grown])?;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let polling = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let _ = member.poll(std::time::Duration::from_millis(50));
        }
    });
    let stable = async || {
        Ok(scene.topic.kafka().group_state(&scene.group).await?.is_some_and(|g| g.state == "Stable"))
    };
    integration_tests::wait_until(integration_tests::Deadline::seconds(30), "the group is stable", stable)
        .await?;
    let mixed = scene.doctor(&[]).await?;
    let eager = scene.doctor(&["--protocol", "eager"]).await?;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    tokio::task::spawn_blocking(move || polling.join()).await?.expect("the member's thread");
    let offsets = ("committed offsets", "warn", "1 of 3");
    mixed.only(&[offsets, ("group", "fail", "Stable, 1 members, \"range\"")]);
    eager.only(&[offsets, ("group", "ok", "1 members")]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_other_columns_and_short_windows_are_found() -> Result<()> {
    let scene = Scene::new(test_name!()).await?;
    let database = &scene.database;
    let again = async |sql: &str| {
        database.exec("DROP TABLE IF EXISTS kmr_consumer_ingest SYNC").await?;
        database.exec(sql).await?;
        scene.doctor(&[]).await
    };
    let columns = "(partition UInt32, offset UInt64, timestamp DateTime";
    let order = "ENGINE = MergeTree ORDER BY (partition, offset)";
    let window = "SETTINGS non_replicated_deduplication_window";

    database.exec("DROP TABLE kmr_consumer_ingest SYNC").await?;
    let unknown =
        ["engine", "deduplication", "parts", "columns"].map(|name| (name, "unknown", "there is no table"));
    let absent = [("table", "fail", "does not exist"), ("writer", "fail", "code 60")];
    scene.doctor(&[]).await?.only(&[&unknown[..], &absent].concat());

    for (create, text) in [
        (
            format!("CREATE TABLE kmr_consumer_ingest {columns}, unit String) {order} {window} = 1000"),
            "`unit` String has no DEFAULT",
        ),
        (TABLE.replace("offset UInt64", "offset String"), "`offset`"),
        (TABLE.replace("timestamp DateTime", "time DateTime"), "no column `timestamp`"),
    ] {
        // A type is checked with the first row, which the writer's start does not have.
        let writer = if create.contains("offset String") { "ok" } else { "fail" };
        again(&create).await?.only(&[("columns", "fail", text), ("writer", writer, "")]);
    }
    let bare = again(&format!("CREATE TABLE kmr_consumer_ingest {columns}) {order}")).await?;
    bare.only(&[("deduplication", "warn", "no window")]);
    assert_eq!(bare.json["guarantee"]["exactly_once_possible"], false);
    again(&TABLE.replace("window = 1000", "window = 20")).await?.only(&[(
        "deduplication",
        "warn",
        "too short",
    )]);
    let memory = again(&format!("CREATE TABLE kmr_consumer_ingest {columns}) ENGINE = Memory")).await?;
    memory.only(&[
        ("engine", "fail", "Memory keeps rows in memory only"),
        ("writer", "fail", "allow_volatile_table"),
        ("deduplication", "warn", ""),
    ]);
    assert_eq!(memory.json["guarantee"]["delivery"], "none");
    // The target of a Buffer keeps its rows; the Buffer does not.
    database.exec(&TABLE.replace("kmr_consumer_ingest", "stored")).await?;
    let buffer =
        format!("Buffer('{}', 'stored', 1, 10, 100, 10000, 1000000, 10000000, 100000000)", database.name());
    let buffer = again(&format!("CREATE TABLE kmr_consumer_ingest AS stored ENGINE = {buffer}")).await?;
    buffer.only(&[
        ("engine", "fail", "Buffer holds rows in memory"),
        ("writer", "fail", "allow_volatile_table"),
        ("deduplication", "warn", ""),
    ]);
    let view = again("CREATE VIEW kmr_consumer_ingest AS SELECT * FROM stored").await?;
    let views = [("engine", "fail", "View accepts no inserts"), ("writer", "fail", "accepts no inserts")];
    view.only(&[&views[..], &[("deduplication", "warn", "")]].concat());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_downstream_of_views_and_full_partitions_are_found() -> Result<()> {
    let scene = Scene::new(test_name!()).await?;
    let database = &scene.database;
    let window = "SETTINGS non_replicated_deduplication_window = 1000";
    let day = "(day Date, n UInt64) ENGINE = SummingMergeTree ORDER BY day";
    database.exec(&format!("CREATE TABLE daily {day} {window}")).await?;
    let select = "SELECT toDate(timestamp) AS day, count() AS n FROM kmr_consumer_ingest GROUP BY day";
    database.exec(&format!("CREATE MATERIALIZED VIEW to_daily TO daily AS {select}")).await?;
    scene.doctor(&[]).await?.only(&[("table", "ok", "1 more downstream of its views")]);
    // A view of the view's table, with a table of its own.
    let own = "ENGINE = SummingMergeTree ORDER BY day AS SELECT day, n FROM daily";
    database.exec(&format!("CREATE MATERIALIZED VIEW all_days {own}")).await?;
    let weak = scene.doctor(&[]).await?;
    weak.only(&[("deduplication", "warn", ".inner"), ("table", "ok", "2 more downstream of its views")]);
    assert_eq!(weak.json["guarantee"]["exactly_once_possible"], false);
    database.exec("DROP TABLE all_days SYNC").await?;
    database.exec("ALTER TABLE daily MODIFY SETTING non_replicated_deduplication_window = 0").await?;
    scene.doctor(&[]).await?.only(&[("deduplication", "warn", "no window: "), ("table", "ok", "1 more")]);
    database.exec("DROP TABLE to_daily SYNC").await?;

    database.exec("SYSTEM STOP MERGES kmr_consumer_ingest").await?;
    let limits = "parts_to_delay_insert = 4, parts_to_throw_insert = 5";
    for n in 0..5 {
        database.exec(&format!("INSERT INTO kmr_consumer_ingest VALUES (0, {n}, 0)")).await?;
    }
    let rows = ("committed offsets", "warn", "has rows");
    scene.doctor(&[]).await?.only(&[rows]);
    database.exec(&format!("ALTER TABLE kmr_consumer_ingest MODIFY SETTING {limits}")).await?;
    scene.doctor(&[]).await?.only(&[rows, ("parts", "fail", "5 active")]);
    database.exec("ALTER TABLE kmr_consumer_ingest MODIFY SETTING parts_to_throw_insert = 50").await?;
    scene.doctor(&[]).await?.only(&[rows, ("parts", "warn", "5 active")]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_permissions_are_found() -> Result<()> {
    let scene = Scene::new(test_name!()).await?;
    let kafka = SecuredKafka::shared().await?;
    let allowed = format!("{}{}", SecuredKafka::PREFIX, unique(test_name!()));
    let secret = unique(test_name!());
    for topic in [&allowed, &secret] {
        kafka.admin().create_topic_named(topic, 1).await?;
        kafka.admin().produce(topic, [Message::new("{}").partition(0)]).await?;
    }
    let doctor_as = async |user: User, topic: &str, group: &str| {
        let login = "security.protocol=SASL_PLAINTEXT;sasl.mechanism=SCRAM-SHA-512";
        let variables = [("KMR_KAFKA_USER", user.name), ("KMR_KAFKA_PASSWORD", user.password)];
        scene.doctor_at(kafka.bootstrap(), topic, &["--set", login, "--group", group], &variables).await
    };
    doctor_as(SecuredKafka::ALLOWED, &allowed, &allowed).await?.only(&[]);
    let group = doctor_as(SecuredKafka::ALLOWED, &allowed, &secret).await?;
    let denied = [
        ("group coordinator", "fail", "not allowed"),
        ("group", "unknown", ""),
        ("committed offsets", "unknown", ""),
    ];
    group.only(&[&denied[..], &[("commit", "fail", "not allowed")]].concat());
    let topic = doctor_as(SecuredKafka::ALLOWED, &secret, &allowed).await?;
    let rest =
        [("topic", "fail", ""), ("committed offsets", "unknown", ""), ("open transactions", "unknown", "")];
    topic.only(&[&rest[..], &[("read the topic", "fail", "not allowed")]].concat());
    let wrong = doctor_as(User { name: "allowed", password: "wrong" }, &allowed, &allowed).await?;
    assert!(wrong.code == Some(1) && wrong.check("broker")["state"] == "fail", "{}", wrong.json);
    assert!(!wrong.json.to_string().contains("wrong\""), "{}", wrong.json);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_transactions_and_topics_for_dead_letters_are_checked() -> Result<()> {
    let scene = Scene::new(test_name!()).await?;
    scene.commit(100).await?;
    // Builds the program if necessary, because the broker aborts an open transaction in time.
    scene.doctor(&[]).await?;
    let kafka = scene.topic.kafka();
    let transactions = kafka.transactions(&unique(test_name!())).await?;
    transactions.leave_open(&scene.topic, (0..10).map(|_| Message::new("{}").partition(0))).await?;
    scene.topic.produce((0..1_000).map(|_| Message::new("{}").partition(0))).await?;
    let open = scene.doctor(&[]).await?;
    open.only(&[
        ("open transactions", "warn", "partition 0: 1,010 offsets wait from 100 on"),
        ("committed offsets", "ok", "lag 0"),
    ]);

    let scene = Scene::new(test_name!()).await?;
    let checked = async |topic: &str| {
        let diagnosis = scene.doctor(&["--dead-letter-topic", topic]).await?;
        anyhow::Ok((diagnosis.code, diagnosis.check("dead letters").to_string()))
    };
    let (code, source) = checked(scene.topic.name()).await?;
    assert!(code == Some(1) && source.contains("is the source"), "{source}");
    let (code, absent) = checked("nowhere").await?;
    assert!(code == Some(1) && absent.contains("does not exist"), "{absent}");
    let good = kafka_topic(&scene, TopicSpec::partitions(1)).await?;
    let (code, good) = checked(&good).await?;
    assert!(code == Some(0) && good.contains("\"state\":\"ok\""), "{good}");
    let small = TopicSpec::partitions(1).config("max.message.bytes", "1000").config("retention.ms", "60000");
    let small = kafka_topic(&scene, small).await?;
    let (code, small) = checked(&small).await?;
    assert!(code == Some(0) && small.contains("\"state\":\"warn\""), "{small}");
    assert!(
        small.contains("max.message.bytes is 1000") && small.contains("retention.ms is 60000"),
        "{small}"
    );
    Ok(())
}

async fn kafka_topic(scene: &Scene, spec: TopicSpec) -> Result<String> {
    Ok(scene.topic.kafka().create_topic("dead-letters", spec).await?.name().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_that_forbids_what_inserts_set_fails() -> Result<()> {
    let scene = Scene::new(test_name!()).await?;
    let constant =
        "<async_insert>1</async_insert><constraints><async_insert><const/></async_insert></constraints>";
    let config = ServerConfig::default().user("constant", constant);
    let server = ClickHouse::builder().config(config).start().await?;
    let database = server.database(test_name!()).await?;
    database.exec(TABLE).await?;
    let doctor_as = async |user: &str| {
        let server = ["--clickhouse", server.url(), "--database", database.name()];
        let variables = [("KMR_CLICKHOUSE_USER", user)];
        scene.doctor_at(scene.topic.kafka().bootstrap(), scene.topic.name(), &server, &variables).await
    };
    doctor_as("default").await?.only(&[]);
    doctor_as("constant").await?.only(&[("writer", "fail", "async_insert should not be changed")]);
    Ok(())
}
