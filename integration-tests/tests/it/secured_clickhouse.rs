//! Users with passwords, and HTTPS with a CA of one's own, against the real server. Our engine speaks no TLS: a proxy of the test's
//! own ends it, as one does in front of many servers. Tokens are for ClickHouse Cloud and for proxies: this one takes one.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use integration_tests::{ClickHouse, Database, equipment, test_name};
use kmr_core::{Attempt, Chunk, Reducer, Rows, error_chain};
use kmr_sinks::clickhouse::{ClickHouseWriter, InsertReceipt, Row};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

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

    /// An HTTPS address in front of the server. A request with the token goes on as that of the user whom the token is of, any other
    /// as it is.
    async fn proxy(&self, server: &ClickHouse) -> String {
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
                let (acceptor, target) = (acceptor.clone(), target.clone());
                tokio::spawn(async move {
                    // A client that does not trust it leaves within the handshake.
                    let Ok(mut near) = acceptor.accept(stream).await else { return };
                    let mut far = TcpStream::connect(target).await.unwrap();
                    far.write_all(&signed_in(&mut near).await).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
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

/// The head of a request, and what of its body came along, with user and password in the place of the token.
async fn signed_in(near: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
        if near.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return bytes;
        }
    }
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let body = bytes.split_off(end);
    let head = String::from_utf8(bytes).unwrap();
    let (user, password) = equipment::USER;
    let token = format!("authorization: Bearer {TOKEN}");
    let head = head.replace(&token, &format!("x-clickhouse-user: {user}\r\nx-clickhouse-key: {password}"));
    [head.into_bytes(), body].concat()
}

/// All that this test's writers log, at every level.
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

async fn deliver(writer: &mut ClickHouseWriter<Line>, count: u64) -> Result<InsertReceipt, String> {
    let mut rows = writer.rows();
    (0..count).for_each(|id| rows.push(Line { id }).unwrap());
    writer.accept(Chunk::new(rows, Vec::new())).unwrap();
    let delivered = writer.freeze().unwrap().deliver(Attempt::new(1)).await;
    delivered.map(|delivered| delivered.output).map_err(|error| error_chain(&*error.into_source()))
}

fn writer_to(url: &str, database: &Database, authority: &Authority) -> ClickHouseWriter<Line> {
    ClickHouseWriter::new(url, "t").database(database.name()).ca_certificate(&authority.file)
}

#[tokio::test]
async fn passwords_tokens_and_own_cas_reach_the_real_server_and_nobody_else() {
    let log = Log::default();
    // With a single dispatcher in the process, whether an event is wanted is asked of the thread that comes by first, and that may be
    // another test's.
    let _another = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let kept = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || kept.clone());
    let guard = tracing::subscriber::set_default(subscriber.finish());
    let server = ClickHouse::equipped().await.unwrap();
    let database = server.database(test_name!()).await.unwrap();
    let ddl =
        "CREATE TABLE t (id UInt64, writer String DEFAULT currentUser()) ENGINE = MergeTree ORDER BY id";
    database.exec(ddl).await.unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let url = ours.proxy(&server).await;
    let (user, password) = equipment::USER;
    let mut shown = String::new();

    let mut by_password = writer_to(&url, &database, &ours).user(user).password(password);
    by_password.start().await.unwrap();
    assert_eq!(deliver(&mut by_password, 1_000).await.unwrap().written_rows, Some(1_000));
    let mut by_token = writer_to(&url, &database, &ours).bearer_token(TOKEN);
    by_token.start().await.unwrap();
    assert_eq!(deliver(&mut by_token, 1_000).await.unwrap().written_rows, Some(1_000));
    let of_alice = format!("SELECT countIf(writer = '{user}') FROM t");
    assert_eq!(database.number(&of_alice).await.unwrap(), 2_000);
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
    assert_eq!(database.count("t").await.unwrap(), 2_000);
    drop(guard);
    shown.push_str(&String::from_utf8_lossy(&log.0.lock().unwrap()));
    assert!(shown.contains("ClickHouse table checked"), "the log is not looked at: {shown}");
    for secret in [password, TOKEN, wrong, "an-0ther-t0ken"] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}
