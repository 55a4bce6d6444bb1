//! What all requests of one server share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kmr_core::ConsumerHandle;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use crate::history::History;
use crate::json;
use crate::token::Token;

/// Listeners of `/events` at once. Each holds a connection.
const MAX_LISTENERS: usize = 64;
/// A status that is younger is shared by all listeners.
const FRESH: Duration = Duration::from_millis(900);

/// Changes what is logged. Returns why it cannot.
pub(crate) type SetLogLevel = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What all requests of one server share.
pub(crate) struct Shared {
    pub(crate) handle: ConsumerHandle,
    pub(crate) token: Option<Token>,
    pub(crate) set_log_level: Option<SetLogLevel>,
    pub(crate) history: Arc<History>,
    /// A permit for each listener of `/events`. Closed when the server has ended.
    pub(crate) listeners: Arc<Semaphore>,
    /// The status that listeners were sent last.
    latest: Mutex<Option<(Instant, Arc<str>)>>,
}

impl Shared {
    pub(crate) fn new(
        handle: ConsumerHandle,
        token: Option<Token>,
        set_log_level: Option<SetLogLevel>,
    ) -> Self {
        let (history, listeners) = (History::start(handle.clone()), Arc::new(Semaphore::new(MAX_LISTENERS)));
        Self { handle, token, set_log_level, history, listeners, latest: Mutex::default() }
    }

    /// The status of this moment, as JSON.
    pub(crate) async fn status(&self) -> String {
        json::status(&self.handle.status().await, self.token.is_some()).to_string()
    }

    /// The status for listeners. It is computed once a second, for all of them.
    pub(crate) async fn status_of_this_second(&self) -> Arc<str> {
        let mut latest = self.latest.lock().await;
        if let Some((at, status)) = &*latest
            && at.elapsed() < FRESH
        {
            return status.clone();
        }
        let status: Arc<str> = self.status().await.into();
        *latest = Some((Instant::now(), status.clone()));
        status
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("token", &self.token).finish_non_exhaustive()
    }
}
