//! [`TokenProvider`]: where tokens for SASL/OAUTHBEARER come from.

use std::fmt;
use std::future::Future;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::error::BoxError;

/// A token for SASL/OAUTHBEARER, with the time at which it expires.
///
/// `Debug` hides the token itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub(crate) value: String,
    pub(crate) principal: String,
    pub(crate) expires_at: SystemTime,
    pub(crate) extensions: Vec<(String, String)>,
}

impl Token {
    /// A token, such as a signed JWT, that expires at this time.
    pub fn new(value: impl Into<String>, expires_at: SystemTime) -> Self {
        Self { value: value.into(), principal: String::new(), expires_at, extensions: Vec::new() }
    }

    /// The name of the principal, for librdkafka's logs. Default: empty. Brokers take the principal
    /// from the token.
    pub fn with_principal(mut self, principal: impl Into<String>) -> Self {
        self.principal = principal.into();
        self
    }

    /// Adds a SASL extension (RFC 7628), such as `logicalCluster` and `identityPoolId` of Confluent
    /// Cloud. A name has the characters a to z and A to Z, and is not `auth`.
    pub fn with_extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.push((name.into(), value.into()));
        self
    }

    /// The token itself, a secret.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// When it expires.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Why it cannot be sent (RFC 7628). librdkafka finds the same, but quotes the token in its
    /// reason. The text has no part of a secret.
    pub(crate) fn problem(&self) -> Option<String> {
        let is_sent = |byte: u8| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n');
        let odd = |text: &str| text.bytes().position(|byte| !is_sent(byte));
        if self.value.is_empty() {
            return Some("the token is empty".to_owned());
        }
        if let Some(at) = odd(&self.value) {
            return Some(format!(
                "byte {at} of the token is not a visible character of ASCII: a file with a BOM or with binary \
                 content is no token"
            ));
        }
        if self.principal.contains('\0') {
            return Some("the token's principal has a zero byte".to_owned());
        }
        self.extensions.iter().find_map(|(name, value)| {
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
            match odd(value) {
                _ if !is_name || name == "auth" => Some(format!(
                    "the extension {name:?} of the token needs a name of the characters a to z and A to Z, other than `auth`"
                )),
                Some(at) => Some(format!(
                    "byte {at} of the token's extension {name:?} is not a visible character of ASCII"
                )),
                None => None,
            }
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extensions: Vec<&str> = self.extensions.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Token")
            .field("value", &"(hidden)")
            .field("principal", &self.principal)
            .field("expires_at", &self.expires_at)
            .field("extensions", &extensions)
            .finish()
    }
}

/// Gets tokens for SASL/OAUTHBEARER. Set one with
/// [`ClientConfig::token_provider`](crate::ClientConfig::token_provider).
///
/// kmr calls it before the first connection, again after four fifths of a token's life, and at once
/// when a broker rejects the token. There is one call at a time, and each may take up to 30 s. A
/// call that fails is repeated, and logged as `kmr.token_failed`. The clients keep the last token
/// meanwhile. All clients of a configuration and its clones share the provider and its tokens: a
/// consumer, the client that reads rejected records again, and a `KafkaWriter`.
///
/// An error must not contain a secret, because it is logged. A panic is an error like any other,
/// and so is a token that cannot be sent or has expired.
///
/// # Examples
/// A closure is a provider, too:
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use kmr_core::{BoxError, ClientConfig, Token};
///
/// # async fn log_in() -> Result<String, BoxError> { Ok("secret".to_owned()) }
/// let config = ClientConfig::new()
///     .set("bootstrap.servers", "broker:9093")
///     .set("security.protocol", "SASL_SSL")
///     .token_provider(async || {
///         let token = log_in().await?;
///         Ok(Token::new(token, SystemTime::now() + Duration::from_secs(3600)))
///     });
/// # let _ = config;
/// ```
#[async_trait]
pub trait TokenProvider: Send + Sync + 'static {
    /// Gets a token.
    ///
    /// # Errors
    /// Any error: kmr tries again.
    ///
    /// # Cancel safety
    /// kmr drops the future after 30 s, or when the clients end.
    async fn token(&self) -> Result<Token, BoxError>;
}

#[async_trait]
impl<F, T> TokenProvider for F
where
    F: Fn() -> T + Send + Sync + 'static,
    T: Future<Output = Result<Token, BoxError>> + Send + 'static,
{
    async fn token(&self) -> Result<Token, BoxError> {
        self().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_is_found_without_a_part_of_the_secret() {
        let token = |value: &str| Token::new(value, SystemTime::UNIX_EPOCH);
        assert_eq!(token("eyJ.a-b_c.d= \t\r\n~!").with_extension("logicalCluster", "").problem(), None);
        for (token, expected) in [
            (token(""), "is empty"),
            (token("\u{feff}s3cret"), "byte 0 of the token"),
            (token("s3cret\u{a0}"), "byte 6 of the token"),
            (token("s3cret\0"), "byte 6 of the token"),
            (token("s3cret\u{7f}"), "byte 6 of the token"),
            (token("a").with_principal("k\0"), "principal"),
            (token("a").with_extension("auth", "s3cret"), "other than `auth`"),
            (token("a").with_extension("", "s3cret"), "a to z and A to Z"),
            (token("a").with_extension("a1", "s3cret"), "a to z and A to Z"),
            (token("a").with_extension("id", "s3cret\u{1}"), "byte 6 of the token's extension \"id\""),
        ] {
            let problem = token.problem().unwrap();
            assert!(problem.contains(expected) && !problem.contains("s3cret"), "{problem}");
        }
    }

    #[test]
    fn debug_hides_the_token_and_the_values_of_extensions() {
        let token = Token::new("abc.def", SystemTime::UNIX_EPOCH)
            .with_principal("kmr")
            .with_extension("logicalCluster", "lkc-1");
        let text = format!("{token:?}");
        assert!(text.contains("kmr") && text.contains("logicalCluster"), "{text}");
        assert!(!text.contains("abc") && !text.contains("lkc-1"), "{text}");
    }
}
