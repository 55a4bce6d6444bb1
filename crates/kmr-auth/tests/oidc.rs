//! `Oidc` against a token endpoint of the tests' own, over HTTP and HTTPS.
#![cfg(feature = "oidc")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use kmr_auth::Oidc;
use kmr_core::{TokenProvider, error_chain};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// The requests that an endpoint has received.
type Requests = Arc<Mutex<Vec<String>>>;

/// An endpoint that answers each request with this status line and body.
async fn endpoint(answer: (&'static str, &'static str), tls: Option<TlsAcceptor>) -> (SocketAddr, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, requests) = (listener.local_addr().unwrap(), Requests::default());
    let received = requests.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match &tls {
                None => serve(stream, answer, &received).await,
                Some(tls) => {
                    // A client that does not trust the certificate ends the handshake.
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, answer, &received).await;
                    }
                }
            }
        }
    });
    (address, requests)
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: (&str, &str), received: &Requests) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request).to_string();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                received.lock().unwrap().push(text);
                break;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
    }
    let (status, body) = answer;
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

const TOKEN: (&str, &str) = ("200 OK", r#"{"access_token":"opaque","token_type":"Bearer","expires_in":300}"#);

fn file(name: &str, content: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("kmr-auth-{}-{name}", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path
}

#[tokio::test]
async fn a_secret_is_sent_in_the_header_and_a_token_has_its_life() {
    let (address, requests) = endpoint(TOKEN, None).await;
    let identity = Oidc::new(format!("http://{address}/token"), "kmr client")
        .client_secret("s3cret/+")
        .scope("kafka read")
        .extension("logicalCluster", "lkc-1");
    let before = SystemTime::now();
    let token = identity.token().await.unwrap();
    assert_eq!(token.value(), "opaque");
    let life = token.expires_at().duration_since(before).unwrap();
    assert!(life >= Duration::from_secs(300) && life < Duration::from_secs(330), "{life:?}");
    let request = requests.lock().unwrap()[0].clone();
    assert!(request.starts_with("POST /token HTTP/1.1"), "{request}");
    // `kmr+client:s3cret%2F%2B`
    assert!(request.contains("authorization: Basic a21yK2NsaWVudDpzM2NyZXQlMkYlMkI="), "{request}");
    assert!(request.ends_with("grant_type=client_credentials&scope=kafka+read"), "{request}");
    let shown = format!("{identity:?} {token:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("opaque") && !shown.contains("lkc-1"), "{shown}");
}

#[tokio::test]
async fn a_secret_and_an_assertion_in_a_file_are_read_for_each_token() {
    let (address, requests) = endpoint(TOKEN, None).await;
    let url = format!("http://{address}/token");
    let secret = file("secret", "one\n");
    let identity = Oidc::new(&url, "kmr").client_secret_file(&secret);
    identity.token().await.unwrap();
    file("secret", "two\n");
    identity.token().await.unwrap();
    let assertion = file("assertion", "a.b.c\n");
    Oidc::new(&url, "kmr").client_assertion_file(&assertion).token().await.unwrap();
    let requests = requests.lock().unwrap().clone();
    assert!(requests[0].contains("Basic a21yOm9uZQ==") && requests[1].contains("Basic a21yOnR3bw=="));
    assert!(requests[2].contains("client_id=kmr") && requests[2].contains("client_assertion=a.b.c"));
    assert!(!requests[2].contains("authorization"), "{}", requests[2]);
    std::fs::remove_file(&secret).unwrap();
    std::fs::remove_file(assertion).unwrap();
    let error = identity.token().await.unwrap_err().to_string();
    assert!(error.contains(&secret.display().to_string()), "{error}");
}

#[tokio::test]
async fn a_failure_names_the_endpoint_and_the_cause_and_no_secret() {
    let rejecting =
        ("401 Unauthorized", r#"{"error":"invalid_client","error_description":"no such client"}"#);
    let (address, _) = endpoint(rejecting, None).await;
    let failure = |url: String| async move {
        let error = Oidc::new(url, "kmr").client_secret("hunter2").token().await.unwrap_err();
        let text = error_chain(&*error);
        assert!(!text.contains("hunter2"), "{text}");
        text
    };
    let text = failure(format!("http://{address}/token")).await;
    assert!(text.contains(&address.to_string()) && text.contains("invalid_client: no such client"), "{text}");
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let text = failure(format!("http://{free}/token")).await;
    let cause = "Connection refused"; // words: quoted
    assert!(text.contains(&free.to_string()) && text.contains(cause), "{text}");
    assert!(failure("id.example/token".to_owned()).await.contains("https://"));
    let error = Oidc::new("https://id.example", "kmr").token().await.unwrap_err().to_string();
    assert!(error.contains("client_secret_file"), "{error}");
}

#[tokio::test]
async fn the_endpoint_has_to_have_a_trusted_certificate() {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let (address, requests) = endpoint(TOKEN, Some(TlsAcceptor::from(Arc::new(config)))).await;
    let identity = Oidc::new(format!("https://localhost:{}/token", address.port()), "kmr").client_secret("s");
    let error = error_chain(&*identity.token().await.unwrap_err());
    assert!(error.contains("certificate"), "{error}");
    let trusted = file("ca", &signed.cert.pem());
    let token = identity.clone().ca_certificate(&trusted).token().await.unwrap();
    assert_eq!((token.value(), requests.lock().unwrap().len()), ("opaque", 1));
    let empty = file("empty", "no certificate");
    let error = identity.ca_certificate(&empty).token().await.unwrap_err().to_string();
    assert!(error.contains(&empty.display().to_string()), "{error}");
    std::fs::remove_file(trusted).unwrap();
    std::fs::remove_file(empty).unwrap();
}
