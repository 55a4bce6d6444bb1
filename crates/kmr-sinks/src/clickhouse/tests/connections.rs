//! Connections: used again after a complete exchange, and never after another end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kmr_core::{Attempt, Reducer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::bisection::{batch_of, deliver};
use super::mock::{ENGINE_REQUEST, Received, asks_for_settings, read_request, settings_in_force};
use super::{sink_error, writer};
use crate::clickhouse::ClickHouseError;
use crate::clickhouse::config::tests::endpoint;
use crate::clickhouse::exactly_once::windows::check_views;

/// What a server does with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Responds, and keeps the connection open for the seconds of `Keep-Alive`.
    Keep(u64),
    /// Responds as with `Keep`, and closes the connection all the same.
    KeepButClose,
    /// Responds, and announces that it closes the connection.
    Close,
    /// Closes the connection without a response.
    Break,
    /// Does not respond.
    Silence,
}

/// A server that keeps connections open.
pub(super) struct Server {
    pub(super) url: String,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    /// `reply` decides for each insert, by its number from 0. Other requests are kept.
    pub(super) async fn new(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::answering("", reply).await
    }

    /// Like [`new`](Self::new), with this body in the response to each request that is none of the
    /// start.
    async fn answering(rows: &'static str, reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let requests: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (reply, inserts) = (Arc::new(reply), Arc::new(AtomicUsize::new(0)));
        let server = Self { url, connections: Arc::clone(&connections), requests: Arc::clone(&requests) };
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                let (reply, inserts, requests) =
                    (Arc::clone(&reply), Arc::clone(&inserts), Arc::clone(&requests));
                tokio::spawn(async move {
                    loop {
                        let mut first = [0];
                        if !matches!(stream.peek(&mut first).await, Ok(1..)) {
                            return;
                        }
                        let request = read_request(&mut stream).await;
                        let asks_for_engine = request.body.starts_with(ENGINE_REQUEST.as_bytes());
                        let settings = asks_for_settings(&request.head, &request.body)
                            .then(|| settings_in_force(&request.head, &[]));
                        let is_start =
                            asks_for_engine || settings.is_some() || request.body.starts_with(b"DESCRIBE");
                        let body = match is_start {
                            true => settings.clone().unwrap_or_else(|| DESCRIPTION.to_owned()),
                            false => rows.to_owned(),
                        };
                        if !asks_for_engine && settings.is_none() {
                            requests.lock().unwrap().push(request);
                        }
                        let reply = match is_start {
                            true => Reply::Keep(30),
                            false => reply(inserts.fetch_add(1, Ordering::Relaxed)),
                        };
                        match reply {
                            Reply::Silence => std::future::pending().await,
                            Reply::Break => return,
                            _ => stream.write_all(response(&body, reply).as_bytes()).await.unwrap(),
                        }
                        if matches!(reply, Reply::Close | Reply::KeepButClose) {
                            return;
                        }
                    }
                });
            }
        });
        server
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

const DESCRIPTION: &str = "{\"name\":\"id\",\"type\":\"UInt64\",\"default_type\":\"\"}\n\
                           {\"name\":\"text\",\"type\":\"String\",\"default_type\":\"\"}\n";

fn response(body: &str, reply: Reply) -> String {
    let connection = match reply {
        Reply::Keep(seconds) => format!("Keep-Alive\r\nKeep-Alive: timeout={seconds}, max=9999"),
        Reply::KeepButClose => "Keep-Alive".to_owned(),
        _ => "close".to_owned(),
    };
    format!(
        "HTTP/1.1 200 OK\r\nX-ClickHouse-Query-Id: q\r\nConnection: {connection}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The connections that four batches take after the start.
async fn connections_of(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> usize {
    let server = Server::new(reply).await;
    let mut writer = writer(&server.url);
    writer.start().await.unwrap();
    for _ in 0..4 {
        let delivered = deliver(&batch_of(&mut writer, 50).await).await;
        assert_eq!(delivered.output.attempts, 1);
        // The end of a connection arrives before the next batch.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.connections()
}

#[tokio::test]
async fn the_start_and_all_inserts_share_a_connection() {
    assert_eq!(connections_of(|_| Reply::Keep(30)).await, 1);
}

#[tokio::test]
async fn a_connection_that_the_server_closes_is_not_used_again() {
    assert_eq!(connections_of(|_| Reply::Close).await, 4);
    assert_eq!(connections_of(|_| Reply::KeepButClose).await, 4);
    // The server's limit for an idle connection is over at once.
    assert_eq!(connections_of(|_| Reply::Keep(0)).await, 4);
}

#[tokio::test]
async fn concurrent_inserts_have_a_connection_each() {
    let server = Server::new(|_| Reply::Keep(30)).await;
    let mut writer = writer(&server.url);
    writer.start().await.unwrap();
    for _ in 0..3 {
        let (one, two) = (batch_of(&mut writer, 5).await, batch_of(&mut writer, 5).await);
        tokio::join!(deliver(&one), deliver(&two));
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_connection_whose_insert_was_dropped_is_not_used_again() {
    let server = Server::new(|number| if number == 1 { Reply::Silence } else { Reply::Keep(30) }).await;
    let mut writer = writer(&server.url);
    writer.start().await.unwrap();
    deliver(&batch_of(&mut writer, 5).await).await;
    let batch = batch_of(&mut writer, 5).await;
    tokio::select! {
        _ = batch.deliver(Attempt::new(1)) => panic!("the server does not respond"),
        () = async { while server.requests.lock().unwrap().len() < 3 { tokio::task::yield_now().await } } => {}
    }
    assert_eq!(batch.deliver(Attempt::new(2)).await.unwrap().output.rows, 5);
    assert_eq!(server.connections(), 2);
    let requests = server.requests.lock().unwrap();
    assert_eq!(requests[2].head, requests[3].head, "the token of a retry differs");
}

#[tokio::test]
async fn a_reset_of_a_used_connection_is_retried_under_the_same_token_on_a_new_one() {
    let server = Server::new(|number| if number == 1 { Reply::Break } else { Reply::Keep(30) }).await;
    let mut writer = writer(&server.url);
    writer.start().await.unwrap();
    deliver(&batch_of(&mut writer, 5).await).await;
    let batch = batch_of(&mut writer, 5).await;
    let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
    assert!(retryable && matches!(error, ClickHouseError::Broken { .. }), "{error}");
    deliver(&batch).await;
    assert_eq!(server.connections(), 2);
    let requests = server.requests.lock().unwrap();
    assert_eq!((&requests[2].head, &requests[2].body), (&requests[3].head, &requests[3].body));
}

#[tokio::test]
async fn views_are_compared_over_connections_of_their_own() {
    let view = "{\"database\":\"db\",\"name\":\"v\",\"uuid\":\"uuid-1\"}\n";
    let server = Server::answering(view, |_| Reply::Keep(30)).await;
    let views = [serde_json::from_str(view).unwrap()];
    check_views(&endpoint(&server.url), "`db`.`lines`", &views).await.unwrap();
    assert_eq!(server.connections(), 5);
}
