//! Client certificates, and certificates that change while the writer inserts.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kmr_core::{Attempt, Reducer, error_chain};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::bisection::{batch_of, deliver};
use super::connections::{Reply, Server};
use super::secrets::Log;
use super::table::{Act, Table};
use super::tls::Authority;
use super::{Line, sink_error, writer};
use crate::clickhouse::{ClickHouseError, ClickHouseWriter};

/// A proxy that terminates TLS, demands client certificates, and can change its own.
struct Proxy {
    url: String,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    /// The certificate of each client that connected.
    clients: Arc<Mutex<Vec<CertificateDer<'static>>>>,
}

impl Proxy {
    /// Has a certificate of `own`, and accepts clients with certificates of `trusted`.
    async fn new(own: &Authority, trusted: &[&Authority], target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let config = Arc::new(Mutex::new(server_config(own, trusted)));
        let clients: Arc<Mutex<Vec<_>>> = Arc::default();
        let proxy = Self { url, config: Arc::clone(&config), clients: Arc::clone(&clients) };
        let target = target.strip_prefix("http://").unwrap().to_owned();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = TlsAcceptor::from(Arc::clone(&config.lock().unwrap()));
                let (target, clients) = (target.clone(), Arc::clone(&clients));
                tokio::spawn(async move {
                    let Ok(mut near) = acceptor.accept(stream).await else { return };
                    let shown = near.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
                    clients.lock().unwrap().push(shown);
                    let mut far = TcpStream::connect(target).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        proxy
    }

    fn change(&self, own: &Authority, trusted: &[&Authority]) {
        *self.config.lock().unwrap() = server_config(own, trusted);
    }

    fn last_client(&self) -> Option<CertificateDer<'static>> {
        self.clients.lock().unwrap().last().cloned()
    }
}

fn server_config(own: &Authority, trusted: &[&Authority]) -> Arc<ServerConfig> {
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    for authority in trusted {
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let (certificate, key) = own.issue("127.0.0.1");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

/// The files of a client's certificate and key.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    fn new(name: &str) -> Self {
        let file =
            |part: &str| std::env::temp_dir().join(format!("kmr-{}-{name}.{part}", std::process::id()));
        Self { certificate: file("crt"), key: file("key") }
    }

    /// Writes a new certificate of the authority, and returns it.
    fn write(&self, authority: &Authority) -> CertificateDer<'static> {
        let (certificate, key) = authority.issue("client.example");
        std::fs::write(&self.certificate, certificate.pem()).unwrap();
        std::fs::write(&self.key, key.serialize_pem()).unwrap();
        certificate.der().clone()
    }

    fn given_to(&self, writer: ClickHouseWriter<Line>) -> ClickHouseWriter<Line> {
        writer.client_certificate(&self.certificate, &self.key)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.certificate);
        let _ = std::fs::remove_file(&self.key);
    }
}

/// Delivers batches of 5 rows until the proxy has seen the certificate; returns their number.
async fn insert_until(
    writer: &mut ClickHouseWriter<Line>,
    proxy: &Proxy,
    client: &CertificateDer<'_>,
) -> usize {
    let started = Instant::now();
    let mut batches = 0;
    while proxy.last_client().as_ref() != Some(client) {
        assert!(started.elapsed() < Duration::from_secs(30), "the new certificate is not used");
        deliver(&batch_of(writer, 5).await).await;
        batches += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    batches
}

#[tokio::test]
async fn a_client_certificate_opens_the_server_and_none_or_another_does_not() {
    let (ours, theirs) = (Authority::new("mutual"), Authority::new("mutual-other"));
    let table = Table::new(|_, _| Act::Store).await;
    let proxy = Proxy::new(&ours, &[&ours], &table.url).await;
    let (good, other) = (Pair::new("good"), Pair::new("other"));
    let certificate = good.write(&ours);
    other.write(&theirs);
    let base = || writer(&proxy.url).ca_certificate(&ours.file).start_timeout(Duration::from_secs(20));
    for mut rejected in [base(), other.given_to(base())] {
        let text = error_chain(&*rejected.start().await.unwrap_err());
        assert!(text.contains("rejects the client's certificate"), "{text}");
        assert!(text.contains(".client_certificate()"), "{text}");
    }
    let mut accepted = good.given_to(base());
    accepted.start().await.unwrap();
    deliver(&batch_of(&mut accepted, 50).await).await;
    assert_eq!((table.sorted_ids().len(), proxy.last_client()), (50, Some(certificate)));
}

#[tokio::test]
async fn the_pair_rotates_while_inserts_go_on_and_no_idle_connection_keeps_the_old_one() {
    let ours = Authority::new("rotating");
    let server = Server::new(|_| Reply::Keep(30)).await;
    let proxy = Proxy::new(&ours, &[&ours], &server.url).await;
    let pair = Pair::new("rotating");
    pair.write(&ours);
    let mut writer = pair.given_to(writer(&proxy.url).ca_certificate(&ours.file));
    writer.start().await.unwrap();
    for connections in 1..=2 {
        assert_eq!(server.connections(), connections, "requests share a connection");
        let next = pair.write(&ours);
        insert_until(&mut writer, &proxy, &next).await;
    }
    assert_eq!((server.connections(), proxy.clients.lock().unwrap().len()), (3, 3));
}

#[tokio::test]
async fn authorities_of_both_sides_rotate_and_no_row_is_lost_or_doubled() {
    let (old, new) = (Authority::new("old-ca"), Authority::new("new-ca"));
    let table = Table::new(|_, _| Act::Store).await;
    let proxy = Proxy::new(&old, &[&old], &table.url).await;
    let pair = Pair::new("both-sides");
    pair.write(&old);
    let trusted = old.file.clone();
    let mut writer = pair.given_to(writer(&proxy.url).ca_certificate(&trusted));
    writer.start().await.unwrap();
    deliver(&batch_of(&mut writer, 5).await).await;
    // The server is ahead: inserts wait for the files.
    proxy.change(&new, &[&new]);
    let batch = batch_of(&mut writer, 5).await;
    let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
    assert!(retryable && matches!(error, ClickHouseError::Rotating { .. }), "{error}");
    assert!(error.to_string().contains("not trusted"), "{error}");
    std::fs::write(&trusted, &new.pem).unwrap();
    let (retryable, error) = sink_error(batch.deliver(Attempt::new(2)).await.unwrap_err());
    assert!(retryable && error.to_string().contains("client's certificate"), "{error}");
    assert!(!error.may_be_stored());
    let next = pair.write(&new);
    deliver(&batch).await;
    assert_eq!(proxy.last_client(), Some(next));
    assert_eq!((table.inserts(), table.sorted_ids().len()), (2, 10), "each row is inserted once");
}

#[tokio::test]
async fn a_half_written_pair_keeps_the_old_one_and_is_logged_once() {
    let ours = Authority::new("halves");
    let table = Table::new(|_, _| Act::Store).await;
    let proxy = Proxy::new(&ours, &[&ours], &table.url).await;
    let pair = Pair::new("halves");
    let before = pair.write(&ours);
    let mut writer = pair.given_to(writer(&proxy.url).ca_certificate(&ours.file));
    writer.start().await.unwrap();
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    let (certificate, key) = ours.issue("client.example");
    std::fs::write(&pair.certificate, certificate.pem()).unwrap();
    let logged = || log.0.lock().unwrap().clone();
    let started = Instant::now();
    while !logged().contains("does not fit") {
        assert!(started.elapsed() < Duration::from_secs(30), "{}", logged());
        deliver(&batch_of(&mut writer, 5).await).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(proxy.last_client(), Some(before));
    std::fs::write(&pair.key, key.serialize_pem()).unwrap();
    insert_until(&mut writer, &proxy, certificate.der()).await;
    drop(guard);
    let logged = logged();
    assert_eq!(logged.matches("cannot be used").count(), 1, "{logged}");
    assert!(logged.contains("halves.key") && logged.contains("halves.crt"), "{logged}");
    assert!(!logged.contains("PRIVATE KEY"), "{logged}");
    assert_eq!(table.sorted_ids().len(), 5 * table.inserts());
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_before_anything_is_connected() {
    let ours = Authority::new("files");
    let (pair, another) = (Pair::new("usable"), Pair::new("another"));
    pair.write(&ours);
    another.write(&ours);
    let empty = Pair::new("empty");
    std::fs::write(&empty.certificate, "").unwrap();
    std::fs::write(&empty.key, "no key").unwrap();
    let locked = Pair::new("locked");
    let text = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(&locked.key, text).unwrap();
    let nowhere = PathBuf::from("/nowhere/client.key");
    for (certificate, key, expected) in [
        (&pair.certificate, &another.key, "another.key does not fit the certificate of"),
        (&empty.certificate, &pair.key, "empty.crt is empty"),
        (&pair.certificate, &empty.key, "empty.key holds no private key in PEM"),
        (&pair.key, &pair.key, "usable.key holds no certificate in PEM"),
        (&pair.certificate, &locked.key, "locked.key is encrypted"),
        (&pair.certificate, &nowhere, "/nowhere/client.key cannot be read"),
    ] {
        let writer = writer("https://db").ca_certificate(&ours.file);
        let error = writer.client_certificate(certificate, key).start().await.unwrap_err();
        let text = error_chain(&*error);
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let mut plain = pair.given_to(writer("http://db:8123"));
    let text = error_chain(&*plain.start().await.unwrap_err());
    assert!(text.contains("needs https://, which db:8123 does not have"), "{text}");
}
