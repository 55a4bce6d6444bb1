//! Mistakes of configuration, unavailable servers, and bad records.
//!
//! Each ends with an error that names the thing and the remedy, on standard error, and with exit
//! code 1. No unprocessed record is committed, no run hangs, and kmr never panics.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration_tests::consumer::{Event, RowKind, Settings, SinkKind};
use integration_tests::{
    Database, Deadline, Message, Process, SecuredKafka, Signal, Topic, User, test_name, unique,
};

use crate::scene::{Scene, TABLE, numbered, start};

/// Timeout of each of these runs in seconds, start-up included. A hang fails here.
const LIMIT: u64 = 60;

/// The consumers' timeout for servers that do not answer.
const SERVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs a consumer that cannot succeed, and returns its standard error. `variant` is the variant of
/// `kmr_core::Error`. The line that starts with `error:` has to contain all of `texts`.
async fn fails(settings: &Settings, variant: &str, texts: &[&str]) -> Result<String> {
    let mut consumer = start(settings)?;
    let status = consumer.wait(Deadline::seconds(LIMIT)).await?;
    let stderr = consumer.stderr();
    ensure!(status.code() == Some(1), "{status}:\n{stderr}");
    let line = stderr.lines().find(|line| line.starts_with("error: "));
    let line = line.with_context(|| format!("no line starts with `error:`:\n{stderr}"))?;
    for text in texts {
        ensure!(line.contains(text), "the error does not contain `{text}`: {line}");
    }
    let Some(Event::Failed { error }) = Event::last(&consumer) else {
        anyhow::bail!("the last event is not a failure:\n{}", consumer.stdout())
    };
    ensure!(error == variant, "expected error {variant}, found {error}: {line}");
    ensure!(!stderr.contains("panicked at"), "kmr panicked:\n{stderr}");
    Ok(stderr)
}

/// A scene with 1,000 records.
async fn scene(name: &str) -> Result<Scene> {
    let scene = Scene::new(name, 2, RowKind::Ingest).await?;
    scene.topic.produce(numbered(1_000, 2)).await?;
    Ok(scene)
}

/// Settings with short timeouts.
fn impatient(scene: &Scene) -> Settings {
    let mut settings = scene.settings();
    settings.connect_timeout = SERVER_TIMEOUT;
    settings.start_timeout = SERVER_TIMEOUT;
    settings
}

async fn nothing_is_committed(topic: &Topic, group: &str) -> Result<()> {
    let committed = topic.committed(group).await?;
    ensure!(committed.is_empty(), "unprocessed records are committed: {committed:?}");
    Ok(())
}

/// An address of this machine without a listener.
fn unused_address() -> Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

#[tokio::test]
async fn an_unreachable_broker_is_named() -> Result<()> {
    let scene = scene(test_name!()).await?;
    let mut settings = impatient(&scene);
    settings.broker = unused_address()?;
    let broker = settings.broker.clone();
    fails(&settings, "Unreachable", &[&broker, "no broker reachable", "check bootstrap.servers"]).await?;
    Ok(())
}

#[tokio::test]
async fn an_unknown_topic_is_named() -> Result<()> {
    let scene = scene(test_name!()).await?;
    let mut settings = impatient(&scene);
    settings.topic = unique("no_such_topic");
    let topic = settings.topic.clone();
    fails(&settings, "UnknownTopic", &[&topic, "does not exist", "create it or correct the name"]).await?;
    Ok(())
}

/// A topic of the secured broker, a table, and settings that authenticate as `user`.
async fn secured(name: &str, topic: &str, group: &str, user: User) -> Result<(Topic, Settings)> {
    let kafka = SecuredKafka::shared().await?;
    let scene = scene(name).await?;
    let topic = kafka.admin().create_topic(topic, 2).await?;
    topic.produce(numbered(100, 2)).await?;
    let mut settings = impatient(&scene);
    settings.broker = kafka.bootstrap().to_owned();
    settings.topic = topic.name().to_owned();
    settings.group = unique(group);
    for (name, value) in user.settings() {
        settings = settings.kafka(name, value);
    }
    Ok((topic, settings))
}

/// A name on which the user `allowed` has all permissions.
fn allowed(name: &str) -> String {
    format!("{}{name}", SecuredKafka::PREFIX)
}

#[tokio::test]
async fn a_user_with_permissions_consumes_from_the_secured_broker() -> Result<()> {
    let name = allowed(test_name!());
    let (topic, settings) = secured(test_name!(), &name, &name, SecuredKafka::ALLOWED).await?;
    let mut consumer = start(&settings)?;
    integration_tests::wait_until(Deadline::seconds(LIMIT), "all records are committed", async || {
        crate::scene::alive(&consumer)?;
        Ok(topic.lag(&settings.group).await? == 0)
    })
    .await?;
    let status = consumer.end(Signal::Terminate, Deadline::seconds(LIMIT)).await?;
    ensure!(status.success(), "{status}: {}", consumer.stderr());
    Ok(())
}

#[tokio::test]
async fn a_topic_without_permission_is_named() -> Result<()> {
    let (topic, settings) =
        secured(test_name!(), "forbidden", &allowed(test_name!()), SecuredKafka::ALLOWED).await?;
    let texts = [topic.name(), "not authorized", "grant READ and DESCRIBE"];
    fails(&settings, "Authorization", &texts).await?;
    nothing_is_committed(&topic, &settings.group).await
}

/// `exit` releases what OpenSSL holds. Threads of a client that are still authenticating crash
/// then: 5 of 160 processes, before consumers waited for their clients.
#[tokio::test]
async fn processes_that_end_while_they_authenticate_do_not_crash() -> Result<()> {
    let (_topic, settings) =
        secured(test_name!(), "forbidden", &allowed(test_name!()), SecuredKafka::ALLOWED).await?;
    for _ in 0..15 {
        let processes = (0..4).map(|_| fails(&settings, "Authorization", &["not authorized"]));
        futures_util::future::try_join_all(processes).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_group_without_permission_is_named() -> Result<()> {
    let (topic, settings) =
        secured(test_name!(), &allowed(test_name!()), "forbidden", SecuredKafka::ALLOWED).await?;
    let group = settings.group.clone();
    fails(&settings, "Authorization", &[&group, "not authorized", "grant READ"]).await?;
    nothing_is_committed(&topic, &settings.group).await
}

#[tokio::test]
async fn wrong_credentials_are_reported() -> Result<()> {
    let name = allowed(test_name!());
    let stranger = User { password: "not-the-password", ..SecuredKafka::ALLOWED };
    let (topic, settings) = secured(test_name!(), &name, &name, stranger).await?;
    let texts = ["rejected the credentials", "sasl.username", "sasl.password"];
    let stderr = fails(&settings, "Authentication", &texts).await?;
    ensure!(!stderr.contains("not-the-password"), "the password is in the log:\n{stderr}");
    nothing_is_committed(&topic, &settings.group).await
}

#[tokio::test]
async fn a_missing_table_is_named() -> Result<()> {
    let scene = scene(test_name!()).await?;
    let mut settings = impatient(&scene);
    settings.table = "no_such_table".to_owned();
    fails(&settings, "Stage", &["no_such_table", "reduce 1", "UNKNOWN_TABLE", "create"]).await?;
    nothing_is_committed(&scene.topic, &scene.group).await
}

#[tokio::test]
async fn a_missing_column_is_named() -> Result<()> {
    let scene = scene(test_name!()).await?;
    replace_table(&scene.database, "partition UInt32, offset UInt64").await?;
    fails(&impatient(&scene), "Stage", &[TABLE, "`timestamp`", "column"]).await?;
    nothing_is_committed(&scene.topic, &scene.group).await
}

#[tokio::test]
async fn a_column_of_another_type_is_named() -> Result<()> {
    let scene = scene(test_name!()).await?;
    replace_table(&scene.database, "partition UInt32, offset UInt64, timestamp Array(String)").await?;
    fails(&impatient(&scene), "Stage", &[TABLE, "`timestamp`", "Array(String)"]).await?;
    ensure!(scene.rows().await? == 0, "no row is stored");
    nothing_is_committed(&scene.topic, &scene.group).await
}

async fn replace_table(database: &Database, columns: &str) -> Result<()> {
    database.exec(&format!("DROP TABLE {TABLE} SYNC")).await?;
    Ok(database
        .exec(&format!("CREATE TABLE {TABLE} ({columns}) ENGINE = MergeTree ORDER BY partition"))
        .await?)
}

#[tokio::test]
async fn a_table_dropped_under_load_is_named() -> Result<()> {
    let scene = scene(test_name!()).await?;
    let mut consumer = start(&scene.settings())?;
    scene.all_committed(&consumer, Deadline::seconds(LIMIT)).await?;
    scene.database.exec(&format!("DROP TABLE {TABLE} SYNC")).await?;
    let committed = scene.committed().await?;
    scene.topic.produce(numbered(1_000, 2)).await?;
    let status = consumer.wait(Deadline::seconds(LIMIT)).await?;
    let stderr = consumer.stderr();
    ensure!(status.code() == Some(1), "{status}:\n{stderr}");
    let line = stderr.lines().find(|line| line.starts_with("error: ")).context("no error")?;
    ensure!(line.contains(TABLE) && line.contains("UNKNOWN_TABLE"), "{line}");
    ensure!(
        scene.committed().await? == committed,
        "commit below unfinished (C1): records of a dropped table are committed"
    );
    Ok(())
}

#[tokio::test]
async fn an_unavailable_clickhouse_is_named_after_the_start_timeout() -> Result<()> {
    let scene = scene(test_name!()).await?;
    let mut settings = impatient(&scene);
    let address = unused_address()?;
    settings.clickhouse = format!("http://{address}");
    fails(&settings, "Stage", &[&address, "was not ready within 3s", "start it, or correct the address"])
        .await?;
    nothing_is_committed(&scene.topic, &scene.group).await
}

#[tokio::test]
async fn an_address_that_is_not_clickhouse_is_named() -> Result<()> {
    let scene = scene(test_name!()).await?;
    let mut settings = impatient(&scene);
    // Kafka closes the connection of an HTTP client.
    settings.clickhouse = format!("http://{}", scene.topic.kafka().bootstrap());
    let address = settings.broker.clone();
    fails(&settings, "Stage", &[&address, "ClickHouse"]).await?;
    Ok(())
}

#[tokio::test]
async fn an_unknown_setting_is_named() -> Result<()> {
    let scene = scene(test_name!()).await?;
    let settings = impatient(&scene).kafka("no.such.setting", "1");
    fails(&settings, "Config", &["no.such.setting"]).await?;
    let settings = impatient(&scene).kafka("session.timeout.ms", "soon");
    fails(&settings, "Config", &["session.timeout.ms"]).await?;
    let mut settings = impatient(&scene);
    settings.memory_budget = 1;
    fails(&settings, "Config", &["memory_budget is 1", "at least"]).await?;
    Ok(())
}

/// Produces 1,000 records to one partition, of which the one at offset [`BAD`] is bad.
async fn with_one_bad(name: &str, payload: &'static str) -> Result<Scene> {
    let scene = Scene::new(name, 1, RowKind::Ingest).await?;
    let message = |n: i64| Message::new(if n == BAD { payload.to_owned() } else { format!("{{\"n\":{n}}}") });
    scene.topic.produce((0..1_000).map(message).collect::<Vec<_>>()).await?;
    Ok(scene)
}

const BAD: i64 = 600;

#[tokio::test]
async fn a_bad_payload_without_reduce_err_stops_at_the_record() -> Result<()> {
    stops_at_the_record(test_name!(), "{\"n\":", "EOF while parsing").await?;
    Ok(())
}

#[tokio::test]
async fn a_mapper_that_panics_without_reduce_err_stops_at_the_record() -> Result<()> {
    stops_at_the_record(test_name!(), "panic", "the test's mapper panics").await?;
    Ok(())
}

async fn stops_at_the_record(name: &str, payload: &'static str, reason: &str) -> Result<()> {
    let scene = with_one_bad(name, payload).await?;
    let mut settings = impatient(&scene);
    settings.dead_letters = false;
    let mut consumer = start(&settings)?;
    let status = consumer.wait(Deadline::seconds(LIMIT)).await?;
    let stderr = consumer.stderr();
    ensure!(status.code() == Some(1), "{status}:\n{stderr}");
    let line = stderr.lines().find(|line| line.starts_with("error: ")).context("no error")?;
    let position = format!("{}/0 offset {BAD}", scene.topic.name());
    for text in [position.as_str(), "map 1", reason, "reduce_err"] {
        ensure!(line.contains(text), "the error does not contain `{text}`: {line}");
    }
    only_the_mapper_panicked(&stderr)?;
    let committed = scene.nothing_is_committed_ahead_of_the_table().await?;
    ensure!(
        committed <= BAD.unsigned_abs(),
        "commit below unfinished (C1): offset {committed} is past the failed record"
    );
    Ok(())
}

#[tokio::test]
async fn a_bad_payload_is_a_dead_letter() -> Result<()> {
    is_a_dead_letter(test_name!(), "{\"n\":", "EOF while parsing").await
}

#[tokio::test]
async fn a_mapper_that_panics_gives_a_dead_letter() -> Result<()> {
    is_a_dead_letter(test_name!(), "panic", "the test's mapper panics").await
}

async fn is_a_dead_letter(name: &str, payload: &'static str, reason: &str) -> Result<()> {
    let scene = with_one_bad(name, payload).await?;
    let mut consumer = start(&impatient(&scene))?;
    scene.all_committed(&consumer, Deadline::seconds(LIMIT)).await?;
    let status = consumer.end(Signal::Terminate, Deadline::seconds(LIMIT)).await?;
    let stderr = consumer.stderr();
    ensure!(status.success(), "{status}:\n{stderr}");
    ensure!(scene.rows().await? == 999, "all rows but the bad one are stored");
    let dead_letter = dead_letter(&consumer)?;
    ensure!(dead_letter["offset"] == BAD && dead_letter["partition"] == 0, "{dead_letter}");
    let text = dead_letter.to_string();
    ensure!(text.contains(scene.topic.name()) && text.contains("map 1") && text.contains(reason), "{text}");
    only_the_mapper_panicked(&stderr)
}

/// Returns the only JSON line of standard error.
fn dead_letter(consumer: &Process) -> Result<serde_json::Value> {
    let stderr = consumer.stderr();
    let mut lines = stderr.lines().filter(|line| line.starts_with('{'));
    let dead_letter = lines.next().with_context(|| format!("no dead letter:\n{stderr}"))?;
    ensure!(lines.next().is_none(), "more than one dead letter:\n{stderr}");
    serde_json::from_str(dead_letter).with_context(|| dead_letter.to_owned())
}

/// Checks that no panic other than the mapper's is in the log.
fn only_the_mapper_panicked(stderr: &str) -> Result<()> {
    for line in stderr.lines().filter(|line| line.contains("panicked at")) {
        ensure!(line.contains("bin/consumer/rows.rs"), "kmr panicked: {line}");
    }
    Ok(())
}

#[tokio::test]
async fn a_sink_that_always_fails_stops_the_consumer() -> Result<()> {
    let scene = scene(test_name!()).await?;
    let mut settings = impatient(&scene);
    settings.sink = SinkKind::AlwaysFails;
    settings.give_up_after = Duration::from_secs(2);
    let stderr = fails(&settings, "Stage", &["reduce 1", "the test's sink accepts no rows"]).await?;
    ensure!(stderr.contains("delivery failed, trying again"), "the delivery was not retried:\n{stderr}");
    nothing_is_committed(&scene.topic, &scene.group).await
}

#[tokio::test]
async fn wrong_clickhouse_credentials_are_reported() -> Result<()> {
    let scene = scene(test_name!()).await?;
    let mut settings = impatient(&scene);
    settings.clickhouse_login = Some(("stranger".to_owned(), "not-the-password".to_owned()));
    let texts = ["reduce 1", "stranger", "AUTHENTICATION_FAILED", ".user() and .password()"];
    let stderr = fails(&settings, "Stage", &texts).await?;
    ensure!(!stderr.contains("not-the-password"), "the password is in the log:\n{stderr}");
    nothing_is_committed(&scene.topic, &scene.group).await
}
