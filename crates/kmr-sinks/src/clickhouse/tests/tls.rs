//! HTTPS with a custom CA: its certificates are trusted, and all others make the start fail.

use std::path::PathBuf;
use std::sync::Arc;

use kmr_core::{Reducer, error_chain};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::bisection::{batch_of, deliver};
use super::connections::{Reply, Server};
use super::table::{Act, Table};
use super::writer;

pub(super) struct Authority {
    pub(super) file: PathBuf,
    pub(super) pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        let file = std::env::temp_dir().join(format!("kmr-{}-{name}.pem", std::process::id()));
        let pem = certificate.pem();
        std::fs::write(&file, &pem).unwrap();
        Self { file, pem, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A certificate for `name`, and its key.
    pub(super) fn issue(&self, name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A proxy that terminates TLS for `name` before the server at `url`; returns its URL.
    async fn proxy(&self, name: &str, url: &str) -> String {
        let (certificate, key) = self.issue(name);
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
        let target = url.strip_prefix("http://").unwrap().to_owned();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, target) = (acceptor.clone(), target.clone());
                tokio::spawn(async move {
                    // A client that does not trust the proxy aborts the handshake.
                    let Ok(mut near) = acceptor.accept(stream).await else { return };
                    let mut far = TcpStream::connect(target).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        format!("https://127.0.0.1:{port}")
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

#[tokio::test]
async fn rows_are_inserted_over_tls_with_a_custom_ca() {
    let table = Table::new(|_, _| Act::Store).await;
    let authority = Authority::new("ours");
    let url = authority.proxy("127.0.0.1", &table.url).await;
    let mut writer = writer(&url).ca_certificate(&authority.file);
    writer.start().await.unwrap();
    deliver(&batch_of(&mut writer, 5_000).await).await;
    assert_eq!(table.sorted_ids().len(), 5_000);
}

#[tokio::test]
async fn the_start_and_all_inserts_share_one_handshake() {
    let server = Server::new(|_| Reply::Keep(30)).await;
    let authority = Authority::new("shared");
    let url = authority.proxy("127.0.0.1", &server.url).await;
    let mut writer = writer(&url).ca_certificate(&authority.file);
    writer.start().await.unwrap();
    for _ in 0..3 {
        deliver(&batch_of(&mut writer, 50).await).await;
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn certificates_of_another_ca_or_for_another_name_are_fatal_at_the_start() {
    let table = Table::new(|_, _| Act::Store).await;
    let (ours, theirs) = (Authority::new("mine"), Authority::new("theirs"));
    let of_others = theirs.proxy("127.0.0.1", &table.url).await;
    let for_others = ours.proxy("elsewhere.example", &table.url).await;
    for url in [&of_others, &for_others] {
        let error = writer(url).ca_certificate(&ours.file).start().await.unwrap_err();
        let text = error_chain(&*error);
        assert!(
            text.contains("certificate that is not trusted") && text.contains(".ca_certificate()"),
            "{text}"
        );
    }
    assert_eq!(table.contents.lock().unwrap().described, 0);
}

#[tokio::test]
async fn an_invalid_ca_file_is_named_before_anything_is_connected() {
    let missing =
        error_chain(&*writer("https://db").ca_certificate("/nowhere/ca.pem").start().await.unwrap_err());
    assert!(missing.contains("/nowhere/ca.pem"), "{missing}");
    let file = std::env::temp_dir().join(format!("kmr-{}-empty.pem", std::process::id()));
    std::fs::write(&file, "no certificate\n").unwrap();
    let empty = error_chain(&*writer("https://db").ca_certificate(&file).start().await.unwrap_err());
    std::fs::remove_file(&file).unwrap();
    assert!(empty.contains("holds no CA certificate"), "{empty}");
}

#[tokio::test]
async fn a_server_without_tls_is_retried_and_named() {
    let table = Table::new(|_, _| Act::Store).await;
    let authority = Authority::new("plain");
    let url = table.url.replace("http://", "https://");
    let mut writer = writer(&url).ca_certificate(&authority.file).start_timeout(std::time::Duration::ZERO);
    let text = error_chain(&*writer.start().await.unwrap_err());
    assert!(text.contains("not ready") && text.contains("127.0.0.1"), "{text}");
}
