//! Credentials without a server: files that change, and closures in virtual time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::clickhouse::http::rotation::PATIENCE;

const LIMIT: Duration = Duration::from_secs(15);

struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, content: &str) -> Self {
        let file = Self(std::env::temp_dir().join(format!("kmr-{}-{name}", std::process::id())));
        file.write(content);
        file
    }

    fn write(&self, content: &str) {
        std::fs::write(&self.0, content).unwrap();
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn from_closure<T>(provide: impl Fn(usize) -> T + Send + Sync + 'static) -> (Credentials, Arc<AtomicUsize>)
where
    T: Future<Output = Result<AccessToken, &'static str>> + Send + 'static,
{
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let provider = TokenProvider::new(move || provide(counted.fetch_add(1, Ordering::Relaxed)));
    (Credentials::new(None, Source::TokenFrom(provider)).unwrap(), calls)
}

fn minute_token(call: usize) -> AccessToken {
    AccessToken::new(format!("token-{call}")).expires_in(Duration::from_secs(60))
}

fn sent(issued: &Issued) -> String {
    let header = issued.headers.get(AUTHORIZATION).or(issued.headers.get("x-clickhouse-key"));
    header.unwrap().to_str().unwrap().to_owned()
}

async fn current(credentials: &Credentials) -> String {
    sent(&credentials.current(LIMIT).await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_used_within_seconds_and_a_bad_one_keeps_the_secret() {
    let file = TempFile::new("password", "first pass\n");
    let credentials = Credentials::new(Some("me".into()), Source::PasswordFile(file.0.clone())).unwrap();
    assert_eq!(current(&credentials).await, "first pass");
    file.write("second\r\n");
    assert_eq!(current(&credentials).await, "first pass", "it was read just now");
    tokio::time::advance(RECHECK).await;
    assert_eq!(current(&credentials).await, "second");
    for bad in ["", "\n", "two\nlines\n", "a\u{1}b"] {
        file.write(bad);
        tokio::time::advance(RECHECK).await;
        assert_eq!(current(&credentials).await, "second", "{bad:?}");
    }
    std::fs::remove_file(&file.0).unwrap();
    tokio::time::advance(RECHECK).await;
    assert_eq!(current(&credentials).await, "second");
    file.write("third");
    // A rejection does not wait for the interval.
    let rejected = credentials.current(LIMIT).await.unwrap();
    assert_eq!(sent(&credentials.after_rejection(&rejected, LIMIT).await.unwrap().unwrap()), "third");
    let shown = credentials.redact("first pass second third");
    assert_eq!(shown, "(hidden) (hidden) (hidden)");
    assert!(!format!("{credentials:?}").contains("third"));
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_file_has_nothing_new_after_a_rejection() {
    let file = TempFile::new("token", "the-token\n");
    let credentials = Credentials::new(None, Source::TokenFile(file.0.clone())).unwrap();
    let rejected = credentials.current(LIMIT).await.unwrap();
    assert_eq!(sent(&rejected), "Bearer the-token");
    assert!(credentials.after_rejection(&rejected, LIMIT).await.unwrap().is_none());
    assert_eq!(credentials.patience(), None);
    credentials.accepted();
    assert_eq!(credentials.patience(), Some(PATIENCE));
    let fixed = Credentials::new(None, Source::Password(Secret("fixed".into()))).unwrap();
    fixed.accepted();
    assert_eq!(fixed.patience(), None, "a fixed password does not rotate");
}

#[test]
fn a_file_that_cannot_be_used_is_named_at_the_start() {
    let error = |file: &TempFile| {
        Credentials::new(None, Source::PasswordFile(file.0.clone())).unwrap_err().to_string()
    };
    for (content, expected) in [("", "is empty"), ("s3cret\nb", "more than one line")] {
        let file = TempFile::new("unusable", content);
        let text = error(&file);
        assert!(text.contains(expected) && text.contains("unusable") && !text.contains("s3cret"), "{text}");
    }
    let missing = TempFile::new("missing", "");
    std::fs::remove_file(&missing.0).unwrap();
    assert!(error(&missing).contains("cannot be read"));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_fetched_once_and_again_at_80_percent_of_its_lifetime() {
    let (credentials, calls) = from_closure(|call| async move { Ok(minute_token(call)) });
    assert_eq!(current(&credentials).await, "Bearer token-0");
    tokio::time::advance(Duration::from_millis(47_900)).await;
    assert_eq!(current(&credentials).await, "Bearer token-0");
    tokio::time::advance(Duration::from_millis(100)).await;
    assert_eq!(current(&credentials).await, "Bearer token-1");
    assert_eq!(current(&credentials).await, "Bearer token-1");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn one_call_serves_all_requests_that_wait() {
    let (credentials, calls) = from_closure(|call| async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(minute_token(call))
    });
    let all = futures_util::future::join_all((0..50).map(|_| current(&credentials))).await;
    assert!(all.iter().all(|token| token == "Bearer token-0"));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    // All were rejected with the same token: one more call.
    let rejected = credentials.current(LIMIT).await.unwrap();
    let renewed = (0..50).map(|_| credentials.after_rejection(&rejected, LIMIT));
    for issued in futures_util::future::join_all(renewed).await {
        assert_eq!(sent(&issued.unwrap().unwrap()), "Bearer token-1");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    // While the token is valid, only one request waits for the next one.
    tokio::time::advance(Duration::from_secs(50)).await;
    let started = Instant::now();
    let (next, at_once) = tokio::join!(current(&credentials), async {
        tokio::task::yield_now().await;
        let token = current(&credentials).await;
        assert!(started.elapsed() < Duration::from_secs(1), "the request waited");
        token
    });
    assert_eq!((next.as_str(), at_once.as_str()), ("Bearer token-2", "Bearer token-1"));
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_fails_or_hangs_is_retryable_and_its_error_is_shown_without_the_token() {
    let (credentials, _) = from_closure(|call| async move {
        match call {
            0 => Err("the identity provider is down"),
            1 => std::future::pending().await,
            2 => Ok(AccessToken::new(" ")),
            3 => Ok(AccessToken::new("t0ken\n")),
            4 => Ok(AccessToken::new("t0ken-4").expires_in(Duration::from_secs(60))),
            _ => Err("cannot renew t0ken-4"),
        }
    });
    let started = Instant::now();
    for expected in ["identity provider is down", "took longer than 15s", "is empty", "no HTTP header"] {
        let error = credentials.current(LIMIT).await.unwrap_err();
        assert!(error.is_retryable() && !error.may_be_stored(), "{error}");
        assert!(error.to_string().contains(expected) && !error.to_string().contains("t0ken"), "{error}");
    }
    assert_eq!(started.elapsed(), LIMIT);
    assert_eq!(current(&credentials).await, "Bearer t0ken-4");
    tokio::time::advance(Duration::from_secs(50)).await;
    assert_eq!(current(&credentials).await, "Bearer t0ken-4", "it has not expired");
    tokio::time::advance(Duration::from_secs(10)).await;
    let error = credentials.current(LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("cannot renew (hidden)"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_leaves_the_closure_to_the_next_one() {
    let (credentials, calls) = from_closure(|call| async move {
        if call == 0 {
            std::future::pending::<()>().await;
        }
        Ok(minute_token(call))
    });
    let dropped = timeout(Duration::from_secs(1), credentials.current(LIMIT)).await;
    assert!(dropped.is_err());
    assert_eq!(current(&credentials).await, "Bearer token-1");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn spaces_at_the_ends_of_credentials_are_kept() {
    let credentials = |user: &str, password: &str| {
        Credentials::new(Some(user.into()), Source::Password(Secret(password.into())))
    };
    let padded = credentials("writer", " pass ").unwrap();
    let shown = padded.redact("d3JpdGVyOiBwYXNzIA==, Basic d3JpdGVyOiBwYXNzIA==, pass");
    assert_eq!(shown, "(hidden), Basic (hidden), (hidden)");
    let basic = padded.current(LIMIT).await.unwrap().headers;
    assert_eq!(basic["authorization"], "Basic d3JpdGVyOiBwYXNzIA==");
    assert!(basic["authorization"].is_sensitive() && !basic.contains_key("x-clickhouse-key"));
    let plain = credentials("writer", "in side").unwrap().current(LIMIT).await.unwrap().headers;
    assert_eq!((plain["x-clickhouse-key"].as_bytes(), plain.get("authorization")), (&b"in side"[..], None));
    assert!(credentials("a:b", "pass ").unwrap_err().to_string().contains("colon"));
}
