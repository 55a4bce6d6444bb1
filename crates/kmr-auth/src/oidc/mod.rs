//! [`Oidc`]: tokens of an identity provider, for the credentials of a client.

mod http;
mod reply;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::{Serializer, byte_serialize};
use kmr_core::{BoxError, Token, TokenProvider, async_trait};

use crate::AuthError;

/// The type of assertion that RFC 7523 defines.
const JWT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Tokens of an identity provider (Keycloak, Okta, Entra ID, Auth0, …), by the grant
/// `client_credentials` of OAuth 2.0 (RFC 6749).
///
/// Each token is one POST request to the provider's token endpoint. kmr gets one before it
/// connects, and the next after four fifths of a token's life: see
/// [`TokenProvider`](kmr_core::TokenProvider). Proxies are not supported.
///
/// The client proves its identity with a secret, a secret in a file, or a signed assertion in a
/// file (RFC 7523, as for workload identities of Kubernetes). Files are read for each token, so
/// they can be rotated.
///
/// # Examples
/// ```
/// use kmr_auth::Oidc;
/// use kmr_core::ClientConfig;
///
/// let identity = Oidc::new("https://id.example/realms/kafka/protocol/openid-connect/token", "kmr")
///     .client_secret_file("/run/secrets/kmr-client")
///     .scope("kafka");
/// let config = ClientConfig::new()
///     .set("bootstrap.servers", "broker:9093")
///     .set("security.protocol", "SASL_SSL")
///     .token_provider(identity);
/// # let _ = config;
/// ```
#[derive(Clone)]
pub struct Oidc {
    url: String,
    client_id: String,
    proof: Proof,
    scope: Option<String>,
    extensions: Vec<(String, String)>,
    ca: Option<PathBuf>,
}

/// How the client proves its identity.
#[derive(Clone)]
enum Proof {
    Missing,
    Secret(String),
    SecretFile(PathBuf),
    AssertionFile(PathBuf),
}

impl Oidc {
    /// `token_url`: the token endpoint, which a provider names at
    /// `/.well-known/openid-configuration`.
    pub fn new(token_url: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            url: token_url.into(),
            client_id: client_id.into(),
            proof: Proof::Missing,
            scope: None,
            extensions: Vec::new(),
            ca: None,
        }
    }

    /// The secret of the client.
    pub fn client_secret(mut self, secret: impl Into<String>) -> Self {
        self.proof = Proof::Secret(secret.into());
        self
    }

    /// A file with the secret of the client. It is read for each token.
    pub fn client_secret_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.proof = Proof::SecretFile(file.into());
        self
    }

    /// A file with a signed JWT that proves the identity of the client. It is read for each token.
    pub fn client_assertion_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.proof = Proof::AssertionFile(file.into());
        self
    }

    /// The scope of the tokens. Default: the provider's.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Adds a SASL extension: see [`Token::with_extension`].
    pub fn extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.push((name.into(), value.into()));
        self
    }

    /// A file of certificates in PEM that are trusted. Default: those of the system.
    pub fn ca_certificate(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(file.into());
        self
    }

    /// Checks the settings, without a request.
    ///
    /// # Errors
    /// The URL is none of http or https, or there is no secret.
    pub fn check(&self) -> Result<(), AuthError> {
        if !self.url.starts_with("https://") && !self.url.starts_with("http://") {
            return Err(AuthError::Setting(format!(
                "the token endpoint is {:?}; it has to be an https:// address",
                self.url
            )));
        }
        if matches!(self.proof, Proof::Missing) {
            return Err(AuthError::Setting(format!(
                "client {:?} of {} has no secret; set client_secret, client_secret_file or client_assertion_file",
                self.client_id, self.url
            )));
        }
        Ok(())
    }

    /// The body of the request, and the `Authorization` header.
    fn request(&self) -> Result<(String, Option<String>), AuthError> {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        let basic = |secret: &str| {
            // RFC 6749 2.3.1: both are encoded like a form before they become Base64.
            let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
            format!("Basic {}", STANDARD.encode(format!("{}:{}", encoded(&self.client_id), encoded(secret))))
        };
        let authorization = match &self.proof {
            Proof::Missing => {
                return Err(self.check().err().unwrap_or(AuthError::Setting("no secret".to_owned())));
            }
            Proof::Secret(secret) => Some(basic(secret)),
            Proof::SecretFile(file) => Some(basic(&read(file)?)),
            Proof::AssertionFile(file) => {
                form.append_pair("client_id", &self.client_id)
                    .append_pair("client_assertion_type", JWT_ASSERTION)
                    .append_pair("client_assertion", &read(file)?);
                None
            }
        };
        Ok((form.finish(), authorization))
    }

    async fn get(&self) -> Result<Token, AuthError> {
        self.check()?;
        let (body, authorization) = self.request()?;
        let (status, body) = http::post(&self.url, self.ca.as_deref(), body, authorization).await?;
        let reply = reply::read(&self.url, status, &body)?;
        let principal = reply.subject.unwrap_or_else(|| self.client_id.clone());
        let token = Token::new(reply.token, SystemTime::now() + reply.life).with_principal(principal);
        let add = |token: Token, (name, value): &(String, String)| token.with_extension(name, value);
        Ok(self.extensions.iter().fold(token, add))
    }
}

/// The content of a file, without the line break at its end.
fn read(file: &Path) -> Result<String, AuthError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        AuthError::Setting(format!("the file {} cannot be read: {error}", file.display()))
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[async_trait]
impl TokenProvider for Oidc {
    async fn token(&self) -> Result<Token, BoxError> {
        Ok(self.get().await?)
    }
}

/// Hides the secret.
impl fmt::Debug for Oidc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oidc")
            .field("url", &self.url)
            .field("client_id", &self.client_id)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
