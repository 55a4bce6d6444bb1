//! HTTPS to the registry.

use std::sync::Arc;

use kmr_formats::SchemaRegistry;
use kmr_formats::testing::TestRegistry;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::kit::{avro, framed, number_schema, row};

/// Accepts TLS for `server`. Returns the port, and the certificate in PEM.
async fn proxy(server: &TestRegistry) -> (u16, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, target) = (listener.local_addr().unwrap().port(), server.address());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate ends the handshake.
                let Ok(mut secured) = acceptor.accept(stream).await else { return };
                let mut plain = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut secured, &mut plain).await;
            });
        }
    });
    (port, cert.pem())
}

#[tokio::test]
async fn a_registry_over_tls_is_read_if_its_certificate_is_trusted() {
    let server = TestRegistry::start().await.unwrap();
    server.register(7, number_schema());
    let (port, pem) = proxy(&server).await;
    let url = format!("https://localhost:{port}");
    let file = std::env::temp_dir().join(format!("kmr-registry-ca-{port}.pem"));
    std::fs::write(&file, pem).unwrap();
    let trusted = SchemaRegistry::builder(&url).ca_certificate(&file).build();
    std::fs::write(&file, generate_simple_self_signed(vec!["x".to_owned()]).unwrap().cert.pem()).unwrap();
    let other = SchemaRegistry::builder(&url).ca_certificate(&file).build();
    std::fs::write(&file, "nothing").unwrap();
    let nothing = SchemaRegistry::builder(&url).ca_certificate(&file).build();
    std::fs::remove_file(&file).unwrap();
    let missing = SchemaRegistry::builder(&url).ca_certificate(&file).build();

    assert_eq!(avro(&trusted.unwrap(), framed(7, &[2])).await, row("{\"n\":1}"));
    let error = other.unwrap().schema(7).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("certificate"), "{error}");
    assert!(nothing.unwrap_err().to_string().contains("no certificate in PEM format"));
    assert!(missing.unwrap_err().to_string().contains("cannot be read"));
}
