//! Passwords, bearer tokens, and HTTPS with a private CA against the real server.
//!
//! The local engine has no TLS, so a proxy of the test terminates it, as proxies of many servers
//! do. The proxy also accepts a bearer token, as ClickHouse Cloud does.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use integration_tests::{
    ALICE, ClickHouse, Database, Deadline, Message, Signal, test_name, wait_until, with_keeper,
};
use kmr_core::{Reducer, error_chain};
use kmr_sinks::clickhouse::{ClickHouseWriter, Row};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::pipeline_file::Walk;
use crate::programs::kmr_with;
use crate::writer::deliver;

const TOKEN: &str = "eyJ-a-t0ken-of-the-test";

#[derive(Row, Serialize)]
struct Line {
    id: u64,
}

struct Authority {
    file: PathBuf,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let file = std::env::temp_dir().join(format!("kmr-it-{}-{name}.pem", std::process::id()));
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { file, issuer: rcgen::Issuer::new(params, key) }
    }

    /// Starts an HTTPS proxy for the server and returns its URL. The proxy forwards a request with
    /// the token as one of the token's user, and any other unchanged.
    async fn proxy(&self, server: &ClickHouse) -> String {
        self.proxy_with(server, Accepted::default()).await
    }

    /// The same. It also forwards a request with the accepted password as one of the server's
    /// default user.
    async fn proxy_with(&self, server: &ClickHouse, accepted: Accepted) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = server.url().strip_prefix("http://").unwrap().to_owned();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, target, accepted) = (acceptor.clone(), target.clone(), accepted.clone());
                tokio::spawn(async move {
                    // A client that does not trust the certificate disconnects during the
                    // handshake.
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    let mut server = TcpStream::connect(target).await.unwrap();
                    server.write_all(&with_credentials(&mut client, &accepted).await).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        format!("https://localhost:{port}")
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// The password of a user that the server does not know: its local engine cannot alter users.
#[derive(Clone, Default)]
struct Accepted(Arc<Mutex<Password>>);

#[derive(Default)]
struct Password {
    current: String,
    /// Requests with another password. The server rejects them.
    rejected: u64,
}

const ROTATING_USER: &str = "x-clickhouse-user: rotating\r\n";

impl Accepted {
    fn set(&self, password: &str) {
        self.0.lock().unwrap().current = password.to_owned();
    }

    fn rejected(&self) -> u64 {
        self.0.lock().unwrap().rejected
    }

    /// The head of a request, without the credentials that are accepted here.
    fn admit(&self, head: &str) -> String {
        let mut password = self.0.lock().unwrap();
        let key = format!("x-clickhouse-key: {}", password.current);
        if !head.contains(ROTATING_USER) {
            return head.to_owned();
        }
        if !head.split("\r\n").any(|line| line == key) {
            password.rejected += 1;
            return head.to_owned();
        }
        let other = |line: &&str| *line != key && *line != ROTATING_USER.trim_end();
        head.split("\r\n").filter(other).collect::<Vec<_>>().join("\r\n")
    }
}

/// Reads the head of a request, and any bytes of its body, and replaces the token with user and
/// password.
async fn with_credentials(client: &mut (impl tokio::io::AsyncRead + Unpin), accepted: &Accepted) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
        if client.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return bytes;
        }
    }
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let body = bytes.split_off(end);
    let head = String::from_utf8(bytes).unwrap();
    let (user, password) = ALICE;
    let token = format!("authorization: Bearer {TOKEN}");
    let head = head.replace(&token, &format!("x-clickhouse-user: {user}\r\nx-clickhouse-key: {password}"));
    let head = accepted.admit(&head);
    // A second request on this connection would be forwarded with its token.
    let head = format!("{head}\r\nconnection: close");
    [head.into_bytes(), body].concat()
}

/// The log of this test's writers, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn written_rows(writer: &mut ClickHouseWriter<Line>, count: u64) -> Option<u64> {
    let delivered = deliver(writer, (0..count).map(|id| Line { id })).await;
    delivered.map_err(|error| error_chain(&*error.into_source())).unwrap().output.written_rows
}

fn writer_to(url: &str, database: &Database, authority: &Authority) -> ClickHouseWriter<Line> {
    ClickHouseWriter::new(url, "t").database(database.name()).ca_certificate(&authority.file)
}

#[tokio::test]
async fn passwords_tokens_and_private_cas_work_and_no_secret_is_logged() {
    let log = Log::default();
    // With a single dispatcher in the process, tracing caches the interest of the first thread that
    // reaches an event, and that can be another test's.
    let _another = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let kept = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || kept.clone());
    let guard = tracing::subscriber::set_default(subscriber.finish());
    let server = with_keeper().await.unwrap();
    let database = server.database(test_name!()).await.unwrap();
    let ddl =
        "CREATE TABLE t (id UInt64, writer String DEFAULT currentUser()) ENGINE = MergeTree ORDER BY id";
    database.exec(ddl).await.unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let url = ours.proxy(&server).await;
    let (user, password) = ALICE;
    let mut shown = String::new();

    let mut by_password = writer_to(&url, &database, &ours).user(user).password(password);
    by_password.start().await.unwrap();
    assert_eq!(written_rows(&mut by_password, 1_000).await, Some(1_000), "a password is accepted");
    let mut by_token = writer_to(&url, &database, &ours).bearer_token(TOKEN);
    by_token.start().await.unwrap();
    assert_eq!(written_rows(&mut by_token, 1_000).await, Some(1_000), "a token is accepted");
    let of_alice = format!("SELECT countIf(writer = '{user}') FROM t");
    assert_eq!(database.number(&of_alice).await.unwrap(), 2_000, "the user has inserted all rows");
    shown.push_str(&format!("{by_password:?} {by_token:?}"));

    let wrong = "not-her-password";
    for (mut writer, expected) in [
        (writer_to(&url, &database, &ours).user(user).password(wrong), ".user() and .password()"),
        (writer_to(&url, &database, &ours).bearer_token("an-0ther-t0ken"), "bearer_token"),
        (
            writer_to(&url, &database, &theirs).user(user).password(password),
            "certificate that is not trusted",
        ),
        (
            writer_to(&url.replace("localhost", "127.0.0.1"), &database, &ours).user(user).password(password),
            "correct the host name",
        ),
    ] {
        let error = error_chain(&*writer.start().await.unwrap_err());
        assert!(error.contains(expected), "{expected}: {error}");
        shown.push_str(&format!("{writer:?} {error} "));
    }
    assert_eq!(database.count("t").await.unwrap(), 2_000, "rejected writers insert nothing");
    drop(guard);
    shown.push_str(&String::from_utf8_lossy(&log.0.lock().unwrap()));
    assert!(shown.contains("ClickHouse table checked"), "the log is empty: {shown}");
    for secret in [password, TOKEN, wrong, "an-0ther-t0ken"] {
        assert!(!shown.contains(secret), "secret {secret} is in logs or errors");
    }
}

/// `HTTPS` is the address of the proxy, and `CA` the file of its authority.
const PIPELINE: &str = r#"
[events.source]
brokers = "BROKER"
topics = "TOPIC"
group = "GROUP"

[events.clickhouse]
urls = "HTTPS"
database = "DATABASE"
table = "events"
ca_certificate = "CA"

[events.record_columns]
partition = "src_partition"
offset = "src_offset"

[events.batch]
max_age = "200ms"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kmr_reaches_clickhouse_over_https_with_a_private_ca() {
    let (ours, theirs) = (Authority::new("kmr-ours"), Authority::new("kmr-theirs"));
    let url = ours.proxy(&ClickHouse::shared().await.unwrap()).await;
    let table = "CREATE TABLE events (id UInt64, src_partition Int32, src_offset Int64) ENGINE = MergeTree \
                 ORDER BY id";
    let file = |authority: &Authority| {
        PIPELINE.replace("HTTPS", &url).replace("CA", authority.file.to_str().unwrap())
    };
    let walk = Walk::with_table(test_name!(), table, &file(&ours)).await.unwrap();
    let records = (0..1_000).map(|id| Message::new(format!("{{\"id\": {id}}}")).partition(id % 2));
    walk.topic.produce(records).await.unwrap();
    let mut process = walk.start().await.unwrap();
    walk.committed(&process).await.unwrap();
    process.end(Signal::Terminate, Deadline::seconds(30)).await.unwrap();
    assert_eq!(walk.database.number("SELECT uniqExact(id) FROM events").await.unwrap(), 1_000);

    // The other commands trust the system's authorities, or those of SSL_CERT_FILE.
    let at = ["--broker", walk.topic.kafka().bootstrap(), "--topic", walk.topic.name()];
    let table = ["--clickhouse", &url, "--database", walk.database.name(), "--table", "events"];
    let columns = ["--partition-column", "src_partition", "--offset-column", "src_offset"];
    for (authority, expected) in [(&ours, Some(0)), (&theirs, Some(1))] {
        let trusted = [("SSL_CERT_FILE", authority.file.to_str().unwrap())];
        let verify = [&["verify", "--group", walk.group()], &at[..], &table[..], &columns[..]].concat();
        let (code, output) = kmr_with(&verify, &trusted).await.unwrap();
        assert_eq!(code, expected, "{output}");
        assert_eq!(output.contains("name the file of its CA in SSL_CERT_FILE"), code != Some(0), "{output}");
    }
    walk.write(&file(&theirs)).unwrap();
    let mut process = walk.start().await.unwrap();
    let status = process.wait(Deadline::seconds(60)).await.unwrap();
    assert_eq!(status.code(), Some(1), "{}", process.stderr());
    for part in ["certificate that is not trusted", "ca_certificate"] {
        assert!(process.stderr().contains(part), "{part:?} is not in {}", process.stderr());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_rotates_while_kmr_inserts_and_every_record_is_stored_once() {
    let (ours, accepted) = (Authority::new("rotating"), Accepted::default());
    let url = ours.proxy_with(&ClickHouse::shared().await.unwrap(), accepted.clone()).await;
    let file = std::env::temp_dir().join(format!("kmr-it-{}-rotating.password", std::process::id()));
    let write = |password: &str| std::fs::write(&file, format!("{password}\n")).unwrap();
    let keys = format!("user = \"rotating\"\npassword_file = \"{}\"\nca_certificate", file.display());
    let pipeline = PIPELINE.replace("ca_certificate", &keys).replace("HTTPS", &url);
    let pipeline = pipeline.replace("CA", ours.file.to_str().unwrap());
    let table = "CREATE TABLE events (id UInt64, src_partition Int32, src_offset Int64) ENGINE = MergeTree \
                 ORDER BY id";
    let walk = Walk::with_table(test_name!(), table, &pipeline).await.unwrap();
    accepted.set("s3cret-0");
    write("s3cret-0");
    let produced = AtomicU64::new(0);
    let produce = async |count: u64| {
        let first = produced.fetch_add(count, Ordering::Relaxed);
        let ids = first..first + count;
        let records = ids.map(|id| Message::new(format!("{{\"id\": {id}}}")).partition((id % 2) as i32));
        walk.topic.produce(records).await
    };
    let mut process = walk.start().await.unwrap();
    produce(500).await.unwrap();
    walk.committed(&process).await.unwrap();
    for round in 1..=4 {
        let (next, before) = (format!("s3cret-{round}"), accepted.rejected());
        // The server is ahead of the file, and then the file is ahead of the server.
        if round % 2 == 0 {
            accepted.set(&next);
        } else {
            write(&next);
        }
        let is_rejected = async || {
            produce(50).await?;
            Ok(accepted.rejected() > before)
        };
        wait_until(Deadline::seconds(60), "an insert is rejected", is_rejected).await.unwrap();
        if round % 2 == 0 {
            write(&next);
        } else {
            accepted.set(&next);
        }
        walk.committed(&process).await.unwrap();
    }
    process.end(Signal::Terminate, Deadline::seconds(30)).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let produced = produced.load(Ordering::Relaxed);
    assert_eq!(walk.database.count("events").await.unwrap(), produced, "no row is lost or doubled");
    assert_eq!(walk.database.number("SELECT uniqExact(id) FROM events").await.unwrap(), produced);
    let stderr = process.stderr();
    assert!(!stderr.contains("s3cret") && stderr.contains(" 0 dead letters"), "{stderr}");
}
