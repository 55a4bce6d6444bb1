//! Credentials that change while a consumer runs: tokens of an identity provider, certificates, and
//! passwords in files. Each time every record arrives once.

mod certificates;
mod identity;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration_tests::{
    Deadline, Kafka, Message, SecuredKafka, Topic, User, test_name, unique, wait_until, with_listeners,
};
use kmr_auth::Oidc;
use kmr_core::{ClientConfig, Consumer, IntoPipeline as _, Record, Strategy, error_chain};
use kmr_sinks::{KafkaMessage, KafkaWriter, MemoryWriter};

use self::certificates::Authority;
use self::identity::{CLIENT, Identity};
use crate::in_process::{Running, run};
use crate::programs::kmr_with;

const QUICK: Duration = Duration::from_millis(50);

/// A folder for the files of a test, which ends with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(unique(name));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::write(&path, content)?;
        Ok(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a map stage")]
fn payload(record: &Record<'_>) -> Result<String, std::convert::Infallible> {
    Ok(String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "a map stage")]
fn forward(record: &Record<'_>) -> Result<KafkaMessage, std::convert::Infallible> {
    Ok(record.into())
}

/// Produces about four records a second, in turn to all partitions.
async fn produce_slowly(topic: &Topic, from: u32, count: u32) -> Result<()> {
    for number in from..from + count {
        let partition = i32::try_from(number)? % topic.partitions();
        topic.produce(vec![Message::new(number.to_string()).partition(partition)]).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// How often credentials have changed.
async fn renewals(running: &Running) -> usize {
    let events = running.handle().status().await.events;
    events.iter().filter(|event| event.text.contains("credentials have changed")).count()
}

/// Fails unless each of `0..count` is there once.
fn each_once(found: impl IntoIterator<Item = String>, count: u32) -> Result<()> {
    let mut numbers =
        found.into_iter().map(|text| text.parse().context("a number")).collect::<Result<Vec<u32>>>()?;
    numbers.sort_unstable();
    let expected: Vec<u32> = (0..count).collect();
    ensure!(numbers == expected, "expected 0..{count} once, found {} records: {numbers:?}", numbers.len());
    Ok(())
}

/// A broker that accepts the tokens of `identity`, and ends connections whose token has expired.
async fn broker_with_tokens(identity: &Identity) -> Result<(Kafka, String)> {
    let jaas = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;";
    let handler = "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler";
    let settings = [
        ("sasl.enabled.mechanisms", "OAUTHBEARER".to_owned()),
        ("connections.max.reauth.ms", "60000".to_owned()),
        ("listener.name.tokens.oauthbearer.sasl.jaas.config", jaas.to_owned()),
        ("listener.name.tokens.oauthbearer.sasl.server.callback.handler.class", handler.to_owned()),
        ("listener.name.tokens.oauthbearer.sasl.oauthbearer.jwks.endpoint.url", identity.keys_url()),
        ("opts", format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={}", identity.keys_url())),
    ];
    let (kafka, listeners) = with_listeners(&[("TOKENS", "SASL_PLAINTEXT")], &settings).await?;
    Ok((kafka, listeners[0].clone()))
}

/// The consumer and the writer share a provider whose tokens live for twelve seconds. The broker
/// ends connections that are not authenticated again in time.
#[tokio::test]
async fn tokens_that_expire_are_replaced_and_nothing_is_lost_or_doubled() -> Result<()> {
    let identity = Identity::start(Duration::from_secs(12)).await?;
    let (kafka, address) = broker_with_tokens(&identity).await?;
    let (source, target) =
        (kafka.create_topic(test_name!(), 3).await?, kafka.create_topic("copies", 1).await?);
    let group = unique(test_name!());
    let oidc = |secret: &str| Oidc::new(identity.token_url(), CLIENT.0).client_secret(secret);
    let config = |secret| {
        ClientConfig::new()
            .set("bootstrap.servers", &address)
            .set("group.id", &group)
            .set("security.protocol", "SASL_PLAINTEXT")
            .token_provider(oidc(secret))
    };
    let consumer = |config: ClientConfig| {
        let writer = KafkaWriter::<KafkaMessage>::new(config.clone(), target.name()).max_age(QUICK);
        Consumer::builder()
            .topics([source.name()])
            .config(config)
            .commit_interval(Duration::from_millis(100))
            .connect_timeout(Duration::from_secs(5))
            .shutdown_signal(std::future::pending())
            .strategy(Strategy::new().map(forward).reduce(writer).into_pipeline())
    };
    let rejected = run(consumer(config("wrong")))?.ended(Deadline::seconds(60)).await?;
    let text = error_chain(&rejected.err().context("the identity provider does not know the client")?);
    ensure!(text.contains("invalid_client") && text.contains(&identity.token_url()), "{text}");
    ensure!(!text.contains("wrong"), "a secret: {text}");

    let mut running = run(consumer(config(CLIENT.1)))?;
    produce_slowly(&source, 0, 180).await?;
    running.all_committed(&source, &group, Deadline::seconds(60)).await?;
    let report = running.stop(Deadline::seconds(60)).await?;
    ensure!(report.stats.reconnects == 0, "the same client to the end: {:?}", report.stats);
    // Forty seconds, and a token every ten.
    ensure!(identity.issued() >= 4, "{} tokens were issued", identity.issued());
    let copies = target.end_offsets().await?;
    ensure!(copies == [(0, 180)].into(), "each record once: {copies:?}");

    commands_get_a_token(&identity, &address, &source, &group).await
}

/// `kmr` gets its token by librdkafka's settings.
async fn commands_get_a_token(identity: &Identity, address: &str, topic: &Topic, group: &str) -> Result<()> {
    let settings = [
        "security.protocol=SASL_PLAINTEXT".to_owned(),
        "sasl.mechanism=OAUTHBEARER".to_owned(),
        "sasl.oauthbearer.method=oidc".to_owned(),
        format!("sasl.oauthbearer.token.endpoint.url={}", identity.token_url()),
        format!("sasl.oauthbearer.client.id={}", CLIENT.0),
        format!("sasl.oauthbearer.client.secret={}", CLIENT.1),
    ]
    .join(";");
    let arguments = ["lag", "--broker", address, "--topic", topic.name(), "--group", group, "--json"];
    let (code, output) = kmr_with(&arguments, &[("KMR_KAFKA_SETTINGS", &settings)]).await?;
    ensure!(code == Some(0) && output.contains("\"lag\""), "{output}");
    Ok(())
}

/// A broker whose clients need a certificate of this authority.
async fn broker_with_certificates(authority: &Authority) -> Result<(Kafka, String)> {
    let server = authority.sign("127.0.0.1", &["127.0.0.1", "localhost"])?;
    let line = |pem: &str| pem.replace('\n', " ").trim().to_owned();
    let settings = [
        ("listener.name.tls.ssl.client.auth", "required".to_owned()),
        ("listener.name.tls.ssl.keystore.type", "PEM".to_owned()),
        ("listener.name.tls.ssl.keystore.certificate.chain", line(&server.certificate)),
        ("listener.name.tls.ssl.keystore.key", line(&server.key)),
        ("listener.name.tls.ssl.truststore.type", "PEM".to_owned()),
        ("listener.name.tls.ssl.truststore.certificates", line(authority.certificate())),
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned()),
        ("super.users", "User:ANONYMOUS;User:CN=first;User:CN=second".to_owned()),
    ];
    let (kafka, listeners) = with_listeners(&[("TLS", "SSL")], &settings).await?;
    Ok((kafka, listeners[0].clone()))
}

/// First the certificate alone changes, which does not fit its key. Then the key follows.
#[tokio::test]
async fn a_certificate_is_replaced_while_the_consumer_runs() -> Result<()> {
    let authority = Authority::new()?;
    let folder = Folder::new(test_name!())?;
    let (kafka, address) = broker_with_certificates(&authority).await?;
    let topic = kafka.create_topic(test_name!(), 3).await?;
    let group = unique(test_name!());
    let (first, second) = (authority.sign("first", &[])?, authority.sign("second", &[])?);
    folder.write("ca.pem", authority.certificate())?;
    folder.write("client.pem", &first.certificate)?;
    folder.write("key.pem", &first.key)?;
    let config = ClientConfig::new()
        .set("bootstrap.servers", &address)
        .set("group.id", &group)
        .set("security.protocol", "SSL")
        .set("ssl.ca.location", folder.path("ca.pem"))
        .set("ssl.certificate.location", folder.path("client.pem"))
        .set("ssl.key.location", folder.path("key.pem"));
    let memory = MemoryWriter::<String>::new().max_age(QUICK);
    let rows = memory.records();
    let consumer = Consumer::builder()
        .topics([topic.name()])
        .config(config)
        .commit_interval(Duration::from_millis(100))
        .shutdown_signal(std::future::pending())
        .strategy(Strategy::new().map(payload).reduce(memory).into_pipeline());
    let mut running = run(consumer)?;
    produce_slowly(&topic, 0, 10).await?;
    folder.write("client.pem", &second.certificate)?;
    produce_slowly(&topic, 10, 110).await?;
    ensure!(renewals(&running).await == 0, "half a change is no change");
    folder.write("key.pem", &second.key)?;
    let renewed = async || Ok(renewals(&running).await == 1);
    wait_until(Deadline::seconds(60), "a new client", renewed).await?;
    produce_slowly(&topic, 120, 20).await?;
    // From now on the first certificate would not do.
    let deny = ["--add", "--deny-principal", "User:CN=first", "--operation", "All", "--topic", topic.name()];
    kafka.tool("kafka-acls", &deny).await?;
    produce_slowly(&topic, 140, 20).await?;
    running.all_committed(&topic, &group, Deadline::seconds(60)).await?;
    let report = running.stop(Deadline::seconds(60)).await?;
    ensure!(report.stats.reconnects == 0, "no client has failed: {:?}", report.stats);
    each_once(rows.take(), 160)
}

/// Both files change, to another user of the broker. The writer follows them, too.
#[tokio::test]
async fn user_and_password_are_read_from_files_again() -> Result<()> {
    let kafka = SecuredKafka::shared().await?;
    let folder = Folder::new(test_name!())?;
    let name = |suffix: &str| unique(&format!("{}{suffix}", SecuredKafka::PREFIX));
    let source = kafka.admin().create_topic_named(&name("source"), 2).await?;
    let target = kafka.admin().create_topic_named(&name("copies"), 1).await?;
    let group = name("group");
    let write = |user: User| -> Result<()> {
        folder.write("user", &format!("{}\n", user.name))?;
        folder.write("password", &format!("{}\n", user.password))?;
        Ok(())
    };
    write(SecuredKafka::ALLOWED)?;
    let config = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("group.id", &group)
        .set("security.protocol", "SASL_PLAINTEXT")
        .set("sasl.mechanism", "SCRAM-SHA-512")
        .set_from_file("sasl.username", Path::new(&folder.path("user")))
        .set_from_file("sasl.password", Path::new(&folder.path("password")));
    let writer = KafkaWriter::<KafkaMessage>::new(config.clone(), target.name()).max_age(QUICK);
    let consumer = Consumer::builder()
        .topics([source.name()])
        .config(config)
        .commit_interval(Duration::from_millis(100))
        .shutdown_signal(std::future::pending())
        .strategy(Strategy::new().map(forward).reduce(writer).into_pipeline());
    let mut running = run(consumer)?;
    produce_slowly(&source, 0, 10).await?;
    write(SecuredKafka::ADMIN)?;
    produce_slowly(&source, 10, 140).await?;
    running.all_committed(&source, &group, Deadline::seconds(60)).await?;
    ensure!(renewals(&running).await == 1);
    running.stop(Deadline::seconds(60)).await?;
    let copies = target.end_offsets().await?;
    ensure!(copies == [(0, 150)].into(), "each record once: {copies:?}");
    Ok(())
}
