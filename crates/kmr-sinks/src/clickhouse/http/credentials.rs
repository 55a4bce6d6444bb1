//! Who sends a request: user and password, or a token. All hosts of a writer share one value, and
//! each request asks it for its headers.
//!
//! 1. A file is read again before a request, at most once every few seconds, and at once after the
//!    server has rejected its content. A file that cannot be used keeps the content before it.
//! 2. The closure runs once at a time. While its token is valid, no request waits for the next one.
//! 3. A rejected token is not sent again.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use kmr_core::error_chain;
use tokio::time::{Instant, timeout};

use crate::clickhouse::access_token::{AccessToken, TokenProvider};
use crate::clickhouse::error::ClickHouseError;
use crate::clickhouse::http::rotation::{Patience, RECHECK, Rereading, read_file};
use crate::clickhouse::http::secret::Secret;
use crate::clickhouse::http::telemetry;

/// Shorter passwords are not redacted: they occur in many words, so redaction would reveal them.
const SHORTEST_SECRET: usize = 4;
/// Secrets that are still redacted after later ones. A response can repeat an earlier one.
const REMEMBERED: usize = 16;
/// The part of a token's lifetime after which the next token is fetched.
const REFRESH_AT: f64 = 0.8;

/// Where the secret comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Nothing,
    Password(Secret),
    Token(Secret),
    PasswordFile(PathBuf),
    TokenFile(PathBuf),
    TokenFrom(TokenProvider),
}

/// The credentials of all requests of a writer.
#[derive(Debug)]
pub(crate) struct Credentials {
    user: Option<String>,
    source: Source,
    state: Mutex<State>,
    /// Held while the closure runs.
    refresh: tokio::sync::Mutex<()>,
    patience: Patience,
}

#[derive(Debug, Default)]
struct State {
    issued: Option<Issued>,
    /// Number of the last secret, and of the last rejected one.
    number: u64,
    rejected: u64,
    secrets: Vec<Secret>,
    rereading: Rereading,
    /// When a refresh of a valid token that failed is tried again.
    retry_at: Option<Instant>,
}

/// The headers of one request.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) headers: HeaderMap,
    number: u64,
    secret: Option<Secret>,
    refresh_at: Option<Instant>,
    expires_at: Option<Instant>,
}

/// How the secret of a source is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Password,
    Token,
}

impl Credentials {
    /// Reads the file, if there is one. Calls no closure.
    pub(crate) fn new(user: Option<String>, source: Source) -> Result<Self, ClickHouseError> {
        let secret = match &source {
            Source::PasswordFile(file) | Source::TokenFile(file) => Some(read_secret(file)?),
            Source::Password(secret) | Source::Token(secret) => Some(secret.clone()),
            Source::Nothing | Source::TokenFrom(_) => None,
        };
        let credentials = Self {
            user,
            source,
            state: Mutex::default(),
            refresh: tokio::sync::Mutex::default(),
            patience: Patience::default(),
        };
        if !matches!(credentials.source, Source::TokenFrom(_)) {
            let headers = credentials.headers(secret.as_ref())?;
            let mut state = credentials.lock();
            state.rereading.is_due(true);
            state.issue(credentials.user(), secret, headers, None);
        }
        Ok(credentials)
    }

    /// The headers of the next request. `limit` bounds the closure.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the closure; the next request calls it again.
    pub(crate) async fn current(&self, limit: Duration) -> Result<Issued, ClickHouseError> {
        match &self.source {
            Source::TokenFrom(provider) => return self.token(provider, limit).await,
            Source::PasswordFile(file) | Source::TokenFile(file) => self.read_again(file, false),
            Source::Nothing | Source::Password(_) | Source::Token(_) => {}
        }
        let issued = self.lock().issued.clone();
        issued.ok_or_else(|| ClickHouseError::Config("no credentials are set".to_owned()))
    }

    /// Other credentials after the server has rejected these, if the source has any.
    ///
    /// # Cancel safety
    /// As [`current`](Self::current).
    pub(crate) async fn after_rejection(
        &self,
        rejected: &Issued,
        limit: Duration,
    ) -> Result<Option<Issued>, ClickHouseError> {
        self.reject(rejected);
        let file = match &self.source {
            Source::TokenFrom(provider) => {
                let issued = self.token(provider, limit).await?;
                return Ok(Some(issued).filter(|issued| !issued.is_same(rejected)));
            }
            Source::PasswordFile(file) | Source::TokenFile(file) => file,
            Source::Nothing | Source::Password(_) | Source::Token(_) => return Ok(None),
        };
        self.read_again(file, true);
        Ok(self.lock().issued.clone().filter(|issued| !issued.is_same(rejected)))
    }

    /// The server has rejected these credentials.
    pub(crate) fn reject(&self, rejected: &Issued) {
        let mut state = self.lock();
        state.rejected = state.rejected.max(rejected.number);
    }

    /// The server has accepted the credentials of a request.
    pub(crate) fn accepted(&self) {
        self.patience.accepted();
    }

    /// How long the last rejection may be temporary; `None` if it is final.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match self.source {
            Source::Nothing | Source::Password(_) | Source::Token(_) => None,
            Source::PasswordFile(_) | Source::TokenFile(_) | Source::TokenFrom(_) => self.patience.rejected(),
        }
    }

    /// `text` without passwords and tokens, in case the server repeats them.
    pub(crate) fn redact(&self, text: &str) -> String {
        let hide = |text: String, secret: &Secret| text.replace(&secret.0, "(hidden)");
        self.lock().secrets.iter().fold(text.to_owned(), hide)
    }

    fn read_again(&self, file: &Path, now: bool) {
        let mut state = self.lock();
        if !state.rereading.is_due(now) {
            return;
        }
        let read = read_secret(file).and_then(|secret| Ok((self.headers(Some(&secret))?, secret)));
        match read {
            Ok((headers, secret)) => {
                state.rereading.is_new(None);
                let before = state.issued.as_ref().and_then(|issued| issued.secret.as_ref());
                if before.is_none_or(|before| before.0 != secret.0) {
                    state.issue(self.user(), Some(secret), headers, None);
                    telemetry::credentials_rotated(file);
                }
            }
            Err(error) => {
                let problem = error.to_string();
                if state.rereading.is_new(Some(&problem)) {
                    telemetry::rotation_incomplete(&problem);
                }
            }
        }
    }

    async fn token(&self, provider: &TokenProvider, limit: Duration) -> Result<Issued, ClickHouseError> {
        let (valid, is_due) = self.lock().valid_token();
        match valid {
            Some(issued) if !is_due => Ok(issued),
            Some(issued) => {
                // Another request fetches the next token already.
                let Ok(_running) = self.refresh.try_lock() else { return Ok(issued) };
                match self.fetch(provider, limit).await {
                    Ok(next) => Ok(next),
                    Err(error) => {
                        telemetry::token_not_refreshed(&error);
                        self.lock().retry_at = Some(Instant::now() + RECHECK);
                        Ok(issued)
                    }
                }
            }
            None => {
                let fetched = timeout(limit, async {
                    let _running = self.refresh.lock().await;
                    // Another request has fetched it meanwhile.
                    let fetched = self.lock().valid_token().0;
                    match fetched {
                        Some(issued) => Ok(issued),
                        None => self.fetch(provider, limit).await,
                    }
                });
                fetched.await.unwrap_or_else(|_| Err(no_token(format!("it took longer than {limit:?}"))))
            }
        }
    }

    /// Calls the closure. The caller holds the lock.
    async fn fetch(&self, provider: &TokenProvider, limit: Duration) -> Result<Issued, ClickHouseError> {
        let called = Instant::now();
        let token = timeout(limit, provider.call()).await;
        let token = token.map_err(|_| no_token(format!("it took longer than {limit:?}")))?;
        let AccessToken { secret, lifetime } =
            token.map_err(|error| no_token(self.redact(&error_chain(&*error))))?;
        if secret.0.trim().is_empty() {
            return Err(no_token("the token is empty".to_owned()));
        }
        let headers = self.headers(Some(&secret)).map_err(|error| no_token(error.to_string()))?;
        // A token that has expired already is used once.
        let times = lifetime.and_then(|lifetime| Some((called, called.checked_add(lifetime)?)));
        let mut state = self.lock();
        state.retry_at = None;
        Ok(state.issue(self.user(), Some(secret), headers, times))
    }

    fn headers(&self, secret: Option<&Secret>) -> Result<HeaderMap, ClickHouseError> {
        let mut headers = HeaderMap::new();
        if self.kind() == Kind::Token {
            if let Some(token) = secret {
                headers.insert(AUTHORIZATION, sensitive("token", &format!("Bearer {}", token.0))?);
            }
            return Ok(headers);
        }
        if let Some(encoded) = padded(self.user(), secret) {
            if self.user().is_some_and(|user| user.contains(':')) {
                return Err(ClickHouseError::Config(
                    "a user with a colon cannot have a user name or password with a space at an end: change one of them"
                        .to_owned(),
                ));
            }
            headers.insert(AUTHORIZATION, sensitive("password", &format!("Basic {encoded}"))?);
            return Ok(headers);
        }
        if let Some(user) = self.user() {
            headers.insert(HeaderName::from_static("x-clickhouse-user"), header_value("user", user)?);
        }
        if let Some(password) = secret {
            headers.insert(HeaderName::from_static("x-clickhouse-key"), sensitive("password", &password.0)?);
        }
        Ok(headers)
    }

    fn kind(&self) -> Kind {
        match self.source {
            Source::Nothing | Source::Password(_) | Source::PasswordFile(_) => Kind::Password,
            Source::Token(_) | Source::TokenFile(_) | Source::TokenFrom(_) => Kind::Token,
        }
    }

    fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The token, unless it has expired or was rejected, and whether the next one is due.
    fn valid_token(&self) -> (Option<Issued>, bool) {
        let now = Instant::now();
        let is_valid = |issued: &&Issued| {
            issued.number > self.rejected && issued.expires_at.is_none_or(|expires_at| now < expires_at)
        };
        let valid = self.issued.as_ref().filter(is_valid);
        let is_due = valid.and_then(|issued| issued.refresh_at).is_some_and(|refresh_at| now >= refresh_at);
        (valid.cloned(), is_due && self.retry_at.is_none_or(|retry_at| now >= retry_at))
    }

    /// `times`: when the token was fetched, and when it expires.
    fn issue(
        &mut self,
        user: Option<&str>,
        secret: Option<Secret>,
        headers: HeaderMap,
        times: Option<(Instant, Instant)>,
    ) -> Issued {
        let encoded = padded(user, secret.as_ref()).map(Secret);
        // A proxy or a log may have removed the spaces around it.
        let shown = secret.iter().cloned().chain(encoded).map(|secret| Secret(secret.0.trim().to_owned()));
        self.secrets.splice(0..0, shown.filter(|secret| secret.0.len() >= SHORTEST_SECRET));
        self.secrets.truncate(REMEMBERED);
        self.number += 1;
        let issued = Issued {
            headers,
            number: self.number,
            secret,
            refresh_at: times.map(|(from, until)| from + (until - from).mul_f64(REFRESH_AT)),
            expires_at: times.map(|(_, until)| until),
        };
        self.issued = Some(issued.clone());
        issued
    }
}

impl Issued {
    fn is_same(&self, other: &Self) -> bool {
        let text = |issued: &Self| issued.secret.as_ref().map(|secret| secret.0.clone());
        text(self) == text(other)
    }
}

/// User and password for basic authentication, if one of them has a space at an end: a server
/// removes spaces around the value of a header.
fn padded(user: Option<&str>, password: Option<&Secret>) -> Option<String> {
    use base64::Engine as _;
    let password = password.map_or("", |password| &password.0);
    let user = user.unwrap_or("default");
    let is_padded = [user, password].iter().any(|text| text.trim() != *text);
    is_padded.then(|| base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// The content of a file without the line break at its end.
fn read_secret(file: &Path) -> Result<Secret, ClickHouseError> {
    let content = read_file(file).map_err(ClickHouseError::Config)?;
    let text = String::from_utf8(content)
        .map_err(|_| ClickHouseError::Config(format!("the file {} is not UTF-8", file.display())))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.contains(['\n', '\r']) {
        let shown = file.display();
        return Err(ClickHouseError::Config(format!("the file {shown} holds more than one line")));
    }
    Ok(Secret(text.to_owned()))
}

fn no_token(problem: String) -> ClickHouseError {
    ClickHouseError::NoToken { problem }
}

fn sensitive(what: &str, text: &str) -> Result<HeaderValue, ClickHouseError> {
    let mut value = header_value(what, text)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A header of this text.
pub(crate) fn header_value(what: &str, text: &str) -> Result<HeaderValue, ClickHouseError> {
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| {
        ClickHouseError::Config(format!("the {what} holds a character that no HTTP header can carry"))
    })
}

#[cfg(test)]
mod tests;
