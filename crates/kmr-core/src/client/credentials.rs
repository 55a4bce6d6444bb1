//! The credentials of one client: the token that it uses, and the files that it was created from.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rdkafka::ClientContext;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::watch;
use tokio::time::timeout;

use super::errors::retryable;
use super::native::token::set_token;
use crate::config::ClientConfig;
use crate::credentials::source::{TokenSource, Tokens};
use crate::credentials::token::Token;
use crate::error::Error;
use crate::telemetry;

/// Keeps the token of a client up to date. Without a token provider it does nothing.
#[derive(Default)]
pub struct Credentials(Option<ClientTokens>);

struct ClientTokens {
    source: TokenSource,
    tokens: Mutex<watch::Receiver<Tokens>>,
    /// A broker has rejected the token that the client has.
    rejected: AtomicBool,
}

impl Credentials {
    /// Waits for the first token.
    ///
    /// # Errors
    /// The provider has returned none within `patience`. The error has the reason of its last
    /// failure.
    pub async fn start(config: &ClientConfig, patience: Duration) -> Result<Self, Error> {
        let Some(source) = config.token_source() else { return Ok(Self::default()) };
        let mut tokens = source.subscribe();
        let first = timeout(patience, tokens.wait_for(|tokens| tokens.current.is_some())).await.is_ok();
        if !first {
            let failure = tokens.borrow().failure.clone();
            let waiting = || format!("it has returned nothing within {patience:?}");
            let reason = failure.map_or_else(waiting, |failure| failure.to_string());
            return Err(retryable("getting a token from the token provider", reason));
        }
        Ok(Self::subscribe(config))
    }

    /// The same without waiting: the client connects once there is a token. Must be called in a
    /// Tokio runtime.
    pub fn subscribe(config: &ClientConfig) -> Self {
        let Some(source) = config.token_source() else { return Self::default() };
        let mut tokens = source.subscribe();
        tokens.mark_changed();
        let (source, tokens) = (source.clone(), Mutex::new(tokens));
        Self(Some(ClientTokens { source, tokens, rejected: AtomicBool::new(false) }))
    }

    /// Sets the first token of a client that was just created.
    ///
    /// # Errors
    /// The client does not use OAUTHBEARER, or the token cannot be sent.
    pub fn apply_first<C: ClientContext>(&self, client: &rdkafka::client::Client<C>) -> Result<(), Error> {
        let Some(token) = self.next() else { return Ok(()) };
        set_token(client, &token).map_err(|reason| {
            Error::Config(format!(
                "the token cannot be used: {reason}; a token provider needs sasl.mechanism=OAUTHBEARER and \
                 security.protocol=SASL_SSL (or SASL_PLAINTEXT)"
            ))
        })
    }

    /// Sets the next token, if there is one. Must be called regularly. Does not block.
    pub fn apply<C: ClientContext>(&self, client: &rdkafka::client::Client<C>) {
        if let Some(token) = self.next()
            && let Err(reason) = set_token(client, &token)
        {
            telemetry::token_failed(&format!("the token cannot be used: {reason}"));
        }
    }

    /// Must be called with each error that the client reports. A rejected token is replaced, once.
    pub fn reported(&self, code: RDKafkaErrorCode) {
        if let Some(tokens) = &self.0
            && code == RDKafkaErrorCode::Authentication
            && !tokens.rejected.swap(true, Ordering::Relaxed)
        {
            tokens.source.rejected();
        }
    }

    /// The token that the client does not have yet.
    fn next(&self) -> Option<Arc<Token>> {
        let client = self.0.as_ref()?;
        let mut tokens = client.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if !tokens.has_changed().unwrap_or(false) {
            return None;
        }
        client.rejected.store(false, Ordering::Relaxed);
        let current = tokens.borrow_and_update().current.clone();
        current.filter(|token| token.expires_at() > SystemTime::now())
    }
}
