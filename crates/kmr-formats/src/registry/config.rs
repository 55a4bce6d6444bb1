//! The settings of a registry.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use hyper::Uri;
use hyper::header::HeaderValue;

use super::cache::Cache;
use super::client::Client;
use super::connector::connector;
use super::{RegistryError, SchemaRegistry};

/// A registry answers from memory. This allows for a slow network.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings of a [`SchemaRegistry`]: see [`SchemaRegistry::builder`].
#[derive(Clone)]
pub struct SchemaRegistryBuilder {
    urls: Vec<String>,
    access: Access,
    ca_certificate: Option<PathBuf>,
    request_timeout: Duration,
}

#[derive(Clone)]
enum Access {
    Anyone,
    User { name: String, password: String },
    Token(String),
}

/// It holds a secret.
impl fmt::Debug for SchemaRegistryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaRegistryBuilder").field("urls", &self.urls).finish_non_exhaustive()
    }
}

impl SchemaRegistryBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            urls: vec![url],
            access: Access::Anyone,
            ca_certificate: None,
            request_timeout: REQUEST_TIMEOUT,
        }
    }

    /// Another address of the same registry. It is used when those before it do not answer.
    pub fn fallback_url(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// The user, for basic authentication. Default: none.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.access = Access::User { name: name.into(), password: password.into() };
        self
    }

    /// A bearer token in place of a user. Default: none.
    pub fn bearer_token(mut self, token: impl Into<String>) -> Self {
        self.access = Access::Token(token.into());
        self
    }

    /// A PEM file of the CA certificates to trust, for `https://`. Default: those of the system.
    pub fn ca_certificate(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_certificate = Some(file.into());
        self
    }

    /// Limit of one request to one address, from the connection to the end of the response. Default
    /// 10 s. A short limit makes a slow registry unavailable. With a long one, records wait for an
    /// address that does not answer, before the next address is used.
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.request_timeout = limit;
        self
    }

    /// Checks the settings. It does not connect.
    ///
    /// # Errors
    /// [`RegistryError::Setting`]: an address is wrong, or the certificates cannot be read.
    pub fn build(self) -> Result<SchemaRegistry, RegistryError> {
        let mut has_https = false;
        let mut urls = Vec::new();
        for url in &self.urls {
            has_https |= check(url).map_err(RegistryError::Setting)?;
            urls.push(url.trim_end_matches('/').to_owned());
        }
        if self.request_timeout.is_zero() {
            return Err(RegistryError::Setting("the request timeout is zero".to_owned()));
        }
        let connector = connector(self.request_timeout, has_https, self.ca_certificate.as_deref())?;
        let authorization = self.access.header().map_err(RegistryError::Setting)?;
        let client = Client::new(connector, urls, authorization, self.request_timeout);
        Ok(SchemaRegistry { shared: Arc::new(super::Shared { client, cache: Cache::default() }) })
    }
}

impl Access {
    fn header(&self) -> Result<Option<HeaderValue>, String> {
        let text = match self {
            Self::Anyone => return Ok(None),
            Self::User { name, .. } if name.contains(':') => {
                return Err(
                    "the user's name has a colon, which basic authentication does not allow".to_owned()
                );
            }
            Self::User { name, password } => {
                let pair = format!("{name}:{password}");
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
            }
            Self::Token(token) => format!("Bearer {token}"),
        };
        let mut header = HeaderValue::from_str(&text)
            .map_err(|_| "the token has a character that a header cannot have".to_owned())?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

/// Checks an address. Returns whether it needs TLS.
fn check(url: &str) -> Result<bool, String> {
    // Errors show addresses.
    if url.contains('@') {
        return Err("an address holds a user: set the user on its own".to_owned());
    }
    let uri = url.parse::<Uri>().map_err(|error| format!("the address {url:?} is wrong: {error}"))?;
    if uri.host().is_none_or(str::is_empty) || uri.query().is_some() {
        return Err(format!("the address {url:?} is not like http://host:8081"));
    }
    match uri.scheme_str() {
        Some("http") => Ok(false),
        Some("https") => Ok(true),
        _ => Err(format!("the address {url:?} does not start with http:// or https://")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_settings_are_named_and_no_secret_is_shown() {
        let builder = |url: &str| SchemaRegistry::builder(url);
        for (built, expected) in [
            (builder("registry:8081").build(), "does not start with http"),
            (builder("http://").build(), "the address"),
            (builder("http://u:s3cret@registry").build(), "holds a user"),
            (builder("ftp://registry").build(), "does not start with http"),
            (builder("http://registry?x=1").build(), "is not like"),
            (builder("http://registry").fallback_url("").build(), "the address \"\""),
            (builder("http://registry").user("a:b", "s3cret").build(), "colon"),
            (builder("http://registry").bearer_token("s3cret\n").build(), "a header cannot have"),
            (builder("http://registry").request_timeout(Duration::ZERO).build(), "zero"),
        ] {
            let error = built.unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
        }
        let registry = builder("http://registry/base/").user("u", "s3cret").fallback_url("http://b");
        assert!(!format!("{registry:?}").contains("s3cret"));
        let registry = registry.build().unwrap();
        let shown = format!("{registry:?}");
        assert!(!shown.contains("s3cret") && shown.contains("http://registry/base\""), "{shown}");
    }
}
