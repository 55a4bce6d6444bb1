//! [`TokenSource`]: the tokens of one provider, for all clients that use them.
//!
//! A task gets a token, publishes it, and gets the next one after four fifths of its life, as
//! librdkafka does. It ends when no client is left.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::token::{Token, TokenProvider};
use crate::error::{BoxError, error_chain};
use crate::telemetry;
use crate::util::panic::panic_message;

/// How long one call of the provider may take.
const CALL: Duration = Duration::from_secs(30);
/// Wait after the first failed call. It doubles with each one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Upper bound of that wait.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Least time between two tokens, whatever their life, and however often brokers reject them.
const LEAST_LIFE: Duration = Duration::from_secs(5);

/// What the task has got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) current: Option<Arc<Token>>,
    /// Why the last call failed. `None`: it did not.
    pub(crate) failure: Option<Arc<str>>,
}

/// The tokens of one provider. Clones share them.
#[derive(Clone)]
pub(crate) struct TokenSource(Arc<Shared>);

struct Shared {
    provider: Box<dyn TokenProvider>,
    tokens: watch::Sender<Tokens>,
    /// The task, while there are clients.
    task: Mutex<Option<JoinHandle<()>>>,
    rejected: Notify,
}

impl TokenSource {
    pub(crate) fn new(provider: impl TokenProvider) -> Self {
        let (provider, tokens) = (Box::new(provider), watch::channel(Tokens::default()).0);
        Self(Arc::new(Shared { provider, tokens, task: Mutex::default(), rejected: Notify::new() }))
    }

    /// The tokens, as long as the receiver lives. Must be called in a Tokio runtime.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Tokens> {
        let mut task = self.0.task.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = self.0.tokens.subscribe();
        // The runtime of an earlier client may have ended, and the task with it.
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            *task = Some(tokio::spawn(self.clone().keep_fresh()));
        }
        receiver
    }

    /// A broker has rejected the token: the next one is due.
    pub(crate) fn rejected(&self) {
        self.0.rejected.notify_one();
    }

    async fn keep_fresh(self) {
        while self.has_clients() {
            let shared = &*self.0;
            tokio::select! {
                () = shared.tokens.closed() => {}
                () = shared.refresh() => {}
            }
        }
    }

    /// `false`: the task ends, and the next client starts another one.
    fn has_clients(&self) -> bool {
        let mut task = self.0.task.lock().unwrap_or_else(PoisonError::into_inner);
        let has_clients = self.0.tokens.receiver_count() > 0;
        if !has_clients {
            *task = None;
        }
        has_clients
    }
}

impl Shared {
    /// Gets a token and waits until the next one is due.
    async fn refresh(&self) {
        let mut wait = FIRST_WAIT;
        let token = loop {
            match self.call().await {
                Ok(token) => break token,
                Err(error) => {
                    let text = error_chain(&*error);
                    telemetry::token_failed(&text);
                    self.tokens.send_modify(|tokens| tokens.failure = Some(text.into()));
                    sleep(wait).await;
                    wait = (wait * 2).min(MAX_WAIT);
                }
            }
        };
        let life = token.expires_at.duration_since(SystemTime::now()).unwrap_or_default();
        telemetry::token_received(life);
        self.tokens.send_replace(Tokens { current: Some(Arc::new(token)), failure: None });
        sleep(LEAST_LIFE).await;
        tokio::select! {
            () = sleep((life.mul_f64(0.8)).saturating_sub(LEAST_LIFE)) => {}
            () = self.rejected.notified() => telemetry::token_rejected(),
        }
    }

    /// Calls the provider. A panic would end the task, and no client would ever get a token again.
    async fn call(&self) -> Result<Token, BoxError> {
        let call = AssertUnwindSafe(async { self.provider.token().await }).catch_unwind();
        let token = timeout(CALL, call)
            .await
            .map_err(|_| format!("the token provider has not returned within {CALL:?}"))?
            .map_err(|panic| format!("the token provider panicked: {}", panic_message(&*panic)))??;
        if let Some(problem) = token.problem() {
            return Err(problem.into());
        }
        if token.expires_at <= SystemTime::now() {
            return Err(
                "the token has expired already; compare the clocks of this machine and the provider".into()
            );
        }
        Ok(token)
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}

impl PartialEq for TokenSource {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TokenSource {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::Instant;

    use super::*;

    /// A source whose tokens are the numbers of the calls, and the counter of the calls. A call
    /// fails while its number is below `failing`.
    fn numbered(failing: usize) -> (TokenSource, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let source = TokenSource::new(move || {
            let call = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                if call < failing {
                    return Err("no identity".into());
                }
                Ok(Token::new(call.to_string(), SystemTime::now() + Duration::from_secs(1000)))
            }
        });
        (source, calls)
    }

    async fn next(tokens: &mut watch::Receiver<Tokens>) -> (Option<String>, Duration) {
        let started = Instant::now();
        tokens.changed().await.unwrap();
        let tokens = tokens.borrow_and_update();
        (tokens.current.as_ref().map(|token| token.value.clone()), started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_replaced_after_four_fifths_of_its_life_or_when_it_is_rejected() {
        let (source, _) = numbered(0);
        let mut tokens = source.subscribe();
        assert_eq!(next(&mut tokens).await.0.as_deref(), Some("0"));
        let (token, waited) = next(&mut tokens).await;
        assert_eq!(token.as_deref(), Some("1"));
        assert!((795..=800).contains(&waited.as_secs()), "{waited:?}");
        // A whole group of connections reports the same token. A later one is not called for.
        sleep(Duration::from_secs(60)).await;
        source.rejected();
        source.rejected();
        let (token, waited) = next(&mut tokens).await;
        assert_eq!(token.as_deref(), Some("2"));
        assert!(waited < Duration::from_secs(1), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_call_is_repeated_and_its_error_is_known() {
        let (source, calls) = numbered(3);
        let mut tokens = source.subscribe();
        assert_eq!(next(&mut tokens).await.0, None);
        assert_eq!(tokens.borrow().failure.as_deref(), Some("no identity"));
        let (token, _) = {
            next(&mut tokens).await;
            next(&mut tokens).await;
            next(&mut tokens).await
        };
        assert_eq!(token.as_deref(), Some("3"));
        assert!(tokens.borrow().failure.is_none());
        assert_eq!(calls.load(Ordering::Relaxed), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_share_the_tokens_and_the_last_one_ends_the_calls() {
        let (source, calls) = numbered(0);
        let mut first = source.subscribe();
        next(&mut first).await;
        let second = source.clone().subscribe();
        assert_eq!(second.borrow().current.as_ref().map(|token| token.value.as_str()), Some("0"));
        drop((first, second));
        sleep(Duration::from_secs(10_000)).await;
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        let mut third = source.subscribe();
        next(&mut third).await;
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_and_a_token_that_cannot_be_sent_are_failures_and_the_next_call_counts() {
        let calls = AtomicUsize::new(0);
        let source = TokenSource::new(move || {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(call > 0, "no identity");
                let value = if call == 1 { "\u{feff}s3cret" } else { "good" };
                Ok(Token::new(value, SystemTime::now() + Duration::from_secs(1000)))
            }
        });
        let mut tokens = source.subscribe();
        for expected in ["the token provider panicked: no identity", "byte 0 of the token"] {
            assert_eq!(next(&mut tokens).await.0, None);
            let failure = tokens.borrow().failure.clone().unwrap();
            assert!(failure.contains(expected) && !failure.contains("s3cret"), "{failure}");
        }
        assert_eq!(next(&mut tokens).await.0.as_deref(), Some("good"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_hangs_and_an_expired_token_are_failures() {
        let hanging = TokenSource::new(|| async { std::future::pending().await });
        let mut tokens = hanging.subscribe();
        next(&mut tokens).await;
        let failure = tokens.borrow().failure.clone().unwrap();
        assert!(failure.contains("not returned within 30s"), "{failure}");
        let expired = TokenSource::new(|| async { Ok(Token::new("t", SystemTime::UNIX_EPOCH)) });
        let mut tokens = expired.subscribe();
        next(&mut tokens).await;
        let failure = tokens.borrow().failure.clone().unwrap();
        assert!(failure.contains("expired already"), "{failure}");
    }
}
