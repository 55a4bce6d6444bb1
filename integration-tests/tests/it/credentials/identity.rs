//! An identity provider of the tests: a token endpoint, and the keys that a broker checks tokens
//! with.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The only client that it knows.
pub(super) const CLIENT: (&str, &str) = ("kmr", "secret-of-the-client");

/// A provider on a loopback address. It ends with the test's runtime.
#[derive(Clone)]
pub(super) struct Identity {
    port: u16,
    state: Arc<State>,
}

struct State {
    key: KeyPair,
    /// How long a token is valid.
    life: Mutex<Duration>,
    issued: AtomicUsize,
}

impl Identity {
    /// Starts a provider whose tokens are valid for this long.
    pub(super) async fn start(life: Duration) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let state = State { key: KeyPair::generate()?, life: Mutex::new(life), issued: AtomicUsize::new(0) };
        let state = Arc::new(state);
        let serving = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = serving.clone();
                tokio::spawn(async move { state.answer(stream).await });
            }
        });
        Ok(Self { port, state })
    }

    /// The token endpoint.
    pub(super) fn token_url(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.port)
    }

    /// The keys.
    pub(super) fn keys_url(&self) -> String {
        format!("http://127.0.0.1:{}/keys", self.port)
    }

    /// Tokens that were issued.
    pub(super) fn issued(&self) -> usize {
        self.state.issued.load(Ordering::Relaxed)
    }
}

impl State {
    async fn answer(&self, mut stream: TcpStream) -> Result<()> {
        let mut bytes = Vec::new();
        while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
        let request = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let (status, body) = if request.starts_with("get /keys") {
            ("200 OK", self.keys())
        } else if request.contains(&format!("authorization: basic {}", basic().to_ascii_lowercase())) {
            self.issued.fetch_add(1, Ordering::Relaxed);
            ("200 OK", self.token()?)
        } else {
            let body = json!({ "error": "invalid_client", "error_description": "no such client" });
            ("401 Unauthorized", body.to_string())
        };
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        stream.shutdown().await.context("answering")
    }

    /// The public key as a JSON Web Key Set.
    fn keys(&self) -> String {
        // An uncompressed point: a byte 4, and both coordinates.
        let point = self.key.der_bytes();
        let (x, y) = (base64_url(&point[1..33]), base64_url(&point[33..65]));
        let key =
            json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "k1", "alg": "ES256", "use": "sig" });
        json!({ "keys": [key] }).to_string()
    }

    fn token(&self) -> Result<String> {
        let life = *self.life.lock().map_err(|_| anyhow::anyhow!("a test has panicked"))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let header = json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" });
        let claims = json!({
            "sub": "svc-kmr", "scope": "kafka",
            "iat": now.as_secs(), "exp": (now + life).as_secs(),
        });
        let signed = format!("{}.{}", base64_url(header.to_string()), base64_url(claims.to_string()));
        let signature = fixed(&self.key.sign(signed.as_bytes())?);
        let token = format!("{signed}.{}", base64_url(signature));
        Ok(json!({ "access_token": token, "token_type": "Bearer", "expires_in": life.as_secs() }).to_string())
    }
}

/// The credentials of [`CLIENT`] as a header has them.
fn basic() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", CLIENT.0, CLIENT.1))
}

fn base64_url(bytes: impl AsRef<[u8]>) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// A signature as JWTs have it: two numbers of 32 bytes. `der`: a sequence of two integers.
fn fixed(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut signature = Vec::new();
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let number = &rest[2..2 + length];
        let number = &number[number.len().saturating_sub(32)..];
        signature.extend(std::iter::repeat_n(0, 32 - number.len()));
        signature.extend_from_slice(number);
        rest = &rest[2 + length..];
    }
    signature
}
