//! Bearer tokens from a closure: the token with its lifetime, and the closure.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kmr_core::BoxError;

use crate::clickhouse::http::secret::Secret;

/// A bearer token that [`bearer_token_from`](super::ClickHouseWriter::bearer_token_from) returns.
/// `Debug` hides it.
#[derive(Clone, Debug)]
pub struct AccessToken {
    pub(crate) secret: Secret,
    pub(crate) lifetime: Option<Duration>,
}

impl AccessToken {
    /// A token without a known end. It is used until the server rejects it.
    pub fn new(token: impl Into<String>) -> Self {
        Self { secret: Secret(token.into()), lifetime: None }
    }

    /// The time from the call of the closure until the token expires. The writer calls the closure
    /// again after 80 % of it. Default: unknown.
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }
}

type Provide = dyn Fn() -> BoxFuture<'static, Result<AccessToken, BoxError>> + Send + Sync;

/// The closure that returns tokens.
#[derive(Clone)]
pub(crate) struct TokenProvider(Arc<Provide>);

impl TokenProvider {
    pub(crate) fn new<F, T, E>(provide: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<AccessToken, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self(Arc::new(move || provide().map(|token| token.map_err(Into::into)).boxed()))
    }

    pub(crate) async fn call(&self) -> Result<AccessToken, BoxError> {
        (self.0)().await
    }
}

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenProvider")
    }
}
