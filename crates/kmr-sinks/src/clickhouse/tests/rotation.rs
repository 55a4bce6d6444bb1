//! Passwords and tokens that change while the writer inserts.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kmr_core::{Attempt, Reducer, error_chain};

use super::bisection::{batch_of, deliver};
use super::secrets::Log;
use super::table::{Act, Table};
use super::{Line, sink_error};
use crate::clickhouse::{AccessToken, ClickHouseError, ClickHouseWriter};

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

async fn table_for(header: &str) -> Table {
    let table = Table::new(|_, _| Act::Store).await;
    require(&table, header);
    table
}

fn require(table: &Table, header: &str) {
    table.contents.lock().unwrap().required = Some(header.to_owned());
}

fn denied(table: &Table) -> usize {
    table.contents.lock().unwrap().denied
}

fn writer(url: &str) -> ClickHouseWriter<Line> {
    ClickHouseWriter::new(url, "lines").database("db").start_timeout(Duration::from_secs(20))
}

fn password(text: &str) -> String {
    format!("x-clickhouse-key: {text}")
}

fn bearer(text: &str) -> String {
    format!("authorization: Bearer {text}")
}

#[tokio::test]
async fn a_rotated_password_is_used_by_the_same_attempt_and_no_row_is_lost_or_doubled() {
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    let file = TempFile::new("rotated", "s3cret-0\n");
    let table = table_for(&password("s3cret-0")).await;
    let mut writer = writer(&table.url).user("me").password_file(&file.0);
    writer.start().await.unwrap();
    for round in 1..=5 {
        let secret = format!("s3cret-{round}");
        file.write(&format!("{secret}\n"));
        require(&table, &password(&secret));
        let batch = batch_of(&mut writer, 10).await;
        assert_eq!(batch.deliver(Attempt::new(1)).await.unwrap().output.attempts, 1);
    }
    assert_eq!((denied(&table), table.inserts(), table.sorted_ids().len()), (5, 5, 50));
    drop(guard);
    let logged = format!("{} {writer:?}", log.0.lock().unwrap());
    assert!(logged.contains("credentials of ClickHouse changed") && !logged.contains("s3cret"), "{logged}");
}

#[tokio::test]
async fn inserts_wait_while_the_server_is_ahead_of_the_file() {
    let file = TempFile::new("late", "s3cret-old");
    let table = table_for(&password("s3cret-old")).await;
    let mut writer = writer(&table.url).user("me").password_file(&file.0);
    writer.start().await.unwrap();
    require(&table, &password("s3cret-new"));
    let batch = batch_of(&mut writer, 10).await;
    let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
    assert!(retryable && matches!(error, ClickHouseError::Rotating { .. }), "{error}");
    assert!(error.to_string().contains("code 516") && !error.may_be_stored(), "{error}");
    file.write("s3cret-new");
    deliver(&batch).await;
    assert_eq!(table.sorted_ids().len(), 10);
}

#[tokio::test]
async fn a_wrong_password_in_the_file_fails_the_start_at_once() {
    let file = TempFile::new("wrong", "s3cret");
    let table = table_for(&password("another")).await;
    let text = error_chain(&*writer(&table.url).password_file(&file.0).start().await.unwrap_err());
    assert!(text.contains("code 516") && !text.contains("s3cret"), "{text}");
    assert_eq!(denied(&table), 1);
}

#[tokio::test]
async fn a_rejected_token_is_fetched_again_once_and_the_insert_repeated() {
    let table = table_for(&bearer("t0ken-0")).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let mut writer = writer(&table.url).bearer_token_from(move || {
        let call = counted.fetch_add(1, Ordering::Relaxed);
        async move { Ok::<_, std::io::Error>(AccessToken::new(format!("t0ken-{call}"))) }
    });
    assert!(!format!("{writer:?}").contains("t0ken-"));
    writer.start().await.unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 1, "all requests of the start share a token");
    require(&table, &bearer("t0ken-1"));
    let batches = (batch_of(&mut writer, 5).await, batch_of(&mut writer, 5).await);
    tokio::join!(deliver(&batches.0), deliver(&batches.1));
    assert_eq!((calls.load(Ordering::Relaxed), table.sorted_ids().len()), (2, 10));

    require(&table, &bearer("never"));
    let batch = batch_of(&mut writer, 5).await;
    let before = denied(&table);
    let (_, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
    assert_eq!((denied(&table) - before, calls.load(Ordering::Relaxed)), (2, 3));
    assert!(!format!("{error} {error:?}").contains("t0ken-"), "{error}");
}

#[tokio::test]
async fn a_closure_that_fails_delays_the_start() {
    let table = table_for(&bearer("t0ken-2")).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let mut writer = writer(&table.url).bearer_token_from(move || {
        let call = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            match call {
                0 | 1 => Err(std::io::Error::other("the identity provider is down")),
                _ => Ok(AccessToken::new(format!("t0ken-{call}"))),
            }
        }
    });
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    writer.start().await.unwrap();
    drop(guard);
    let logged = log.0.lock().unwrap().clone();
    assert_eq!(logged.matches("not ready yet").count(), 1, "one line each 30 s: {logged}");
    assert!(logged.contains("identity provider is down"), "{logged}");
}

#[tokio::test]
async fn a_token_file_and_the_closure_serve_fallback_hosts_too() {
    let file = TempFile::new("fallback", "t0ken-0");
    let table = table_for(&bearer("t0ken-0")).await;
    let mut writer = writer("http://127.0.0.1:1").fallback_host(&table.url).bearer_token_file(&file.0);
    writer.start().await.unwrap();
    file.write("t0ken-1");
    require(&table, &bearer("t0ken-1"));
    deliver(&batch_of(&mut writer, 5).await).await;
    assert_eq!((denied(&table), table.sorted_ids().len()), (1, 5));
}

#[tokio::test]
async fn two_sources_of_credentials_are_rejected() {
    let token = || async { Ok::<_, std::io::Error>(AccessToken::new("t")) };
    for (mut writer, expected) in [
        (writer("http://db").password("a").password_file("b"), ".password() and .password_file()"),
        (writer("http://db").password_file("a").bearer_token_file("b"), "token and a user or password"),
        (writer("http://db").user("a").bearer_token_from(token), "token and a user or password"),
        (writer("http://db").bearer_token_file("a").bearer_token_from(token), "two tokens"),
        (writer("http://db").password_file("/nowhere/password"), "/nowhere/password cannot be read"),
    ] {
        let text = error_chain(&*writer.start().await.unwrap_err());
        assert!(text.contains(expected), "{text}");
    }
}
