//! A server that reads requests and responds, or fails, by script: one step for each connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What the server does with one connection.
#[derive(Clone, Debug)]
pub(super) enum MockStep {
    /// Reads the request and responds with these bytes.
    Respond(Vec<u8>),
    /// Reads the request, sends these bytes of an incomplete response, and closes.
    Truncate(Vec<u8>),
    /// Reads the head and a part of the body, and closes.
    CloseEarly,
    /// Reads the request and never responds.
    NoResponse,
    /// Reads nothing.
    NoRead,
}

impl MockStep {
    fn is_description(&self) -> bool {
        let MockStep::Respond(bytes) = self else { return false };
        bytes.starts_with(b"HTTP/1.1 200") && bytes.windows(12).any(|part| part == b"default_type")
    }
}

/// A request of the start that takes no step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StartQuestion {
    Engine,
    Settings,
}

/// The question of the start that the request is, if it is one. The request is not read yet.
async fn start_question(stream: &TcpStream) -> Option<StartQuestion> {
    let mut start = vec![0; 16_384];
    loop {
        let length = stream.peek(&mut start).await.unwrap_or(0);
        let seen = String::from_utf8_lossy(&start[..length]);
        let Some((head, body)) = seen.split_once("\r\n\r\n") else {
            if length == 0 || length == start.len() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        if head.contains("?query=") || body.len() >= ENGINE_REQUEST.len() || !head.contains("content-length")
        {
            let is_engine = body.starts_with(ENGINE_REQUEST).then_some(StartQuestion::Engine);
            let is_settings = asks_for_settings(head, body.as_bytes()).then_some(StartQuestion::Settings);
            return is_engine.or(is_settings);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Reads a request, and responds with no rows.
pub(super) async fn answer_nothing(stream: &mut TcpStream) {
    read_request(stream).await;
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(response).await.unwrap();
}

/// Reads the start's question for the settings in force, and answers it.
pub(super) async fn answer_settings(stream: &mut TcpStream) {
    let request = read_request(stream).await;
    let MockStep::Respond(bytes) = response("200 OK", &[], &settings_in_force(&request.head, &[])) else {
        unreachable!()
    };
    stream.write_all(&bytes).await.unwrap();
}

/// Whether this is the start's question for the settings in force.
pub(super) fn asks_for_settings(head: &str, body: &[u8]) -> bool {
    head.contains("insert_deduplication_token=kmr-start") && body.starts_with(b"SELECT")
}

/// The answer to it: the settings in the URL. Those that a proxy `removed` have their defaults.
pub(super) fn settings_in_force(head: &str, removed: &[&str]) -> String {
    let (_, target) = head.split_once('?').unwrap();
    let parameters = target[..target.find(' ').unwrap()].split('&');
    let settings = parameters.map(|parameter| parameter.split_once('=').unwrap());
    let line = |(name, value): (&str, &str)| {
        let value = if removed.contains(&name) { "default" } else { value };
        format!("{{\"name\":\"{name}\",\"value\":\"{value}\"}}\n")
    };
    settings.map(line).collect()
}

/// How the request for the engine starts.
pub(super) const ENGINE_REQUEST: &str = "SELECT database, name FROM system.tables WHERE";

/// A request as it was received.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

pub(super) struct Mock {
    pub(super) url: String,
    pub(super) received: Arc<Mutex<Vec<Received>>>,
    /// One message for each connection that the client closed while it waited for a response.
    pub(super) closed: mpsc::UnboundedReceiver<()>,
}

/// A response with a status line, extra headers, and a body of known length. The server closes the
/// connection after it.
pub(super) fn response(status: &str, headers: &[(&str, &str)], body: &str) -> MockStep {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("\r\n{body}"));
    MockStep::Respond(text.into_bytes())
}

/// ClickHouse's response to `DESCRIBE TABLE` of the tests' table.
pub(super) fn description() -> MockStep {
    description_with(&[])
}

/// The same with headers.
pub(super) fn description_with(headers: &[(&str, &str)]) -> MockStep {
    response(
        "200 OK",
        headers,
        "{\"name\":\"id\",\"type\":\"UInt64\",\"default_type\":\"\"}\n\
         {\"name\":\"text\",\"type\":\"String\",\"default_type\":\"\"}\n",
    )
}

/// ClickHouse's response to an insert of `rows` rows.
pub(super) fn written(rows: u64) -> MockStep {
    let summary = format!("{{\"read_rows\":\"{rows}\",\"written_rows\":\"{rows}\"}}");
    response("200 OK", &[("X-ClickHouse-Summary", &summary), ("X-ClickHouse-Query-Id", "q-1")], "")
}

impl Mock {
    /// Serves `steps`, one for each connection, and then rejects connections. The start's requests
    /// for the engine of the table and for the settings take no step: the mock shows no such table,
    /// and applies all settings.
    pub(super) async fn new(steps: Vec<MockStep>) -> Self {
        Self::serving(steps, false).await
    }

    /// Like [`new`](Self::new), but questions about system tables are no step: the answer has no
    /// rows.
    pub(super) async fn without_system_tables(steps: Vec<MockStep>) -> Self {
        Self::serving(steps, true).await
    }

    async fn serving(steps: Vec<MockStep>, answers_questions: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let (closing, closed) = mpsc::unbounded_channel();
        let log = Arc::clone(&received);
        tokio::spawn(async move {
            let mut steps = VecDeque::from(steps);
            // The first description is followed by requests for the engine and for the settings.
            let mut due = match steps.iter().any(MockStep::is_description) {
                true => vec![StartQuestion::Engine, StartQuestion::Settings],
                false => Vec::new(),
            };
            while !due.is_empty() || !steps.is_empty() {
                let (mut stream, _) = listener.accept().await.unwrap();
                let question = if due.is_empty() { None } else { start_question(&stream).await };
                if let Some(at) = due.iter().position(|due| question == Some(*due)) {
                    match due.remove(at) {
                        StartQuestion::Engine => answer_nothing(&mut stream).await,
                        StartQuestion::Settings => answer_settings(&mut stream).await,
                    }
                } else if answers_questions && is_question(&stream).await {
                    answer_nothing(&mut stream).await;
                } else if let Some(step) = steps.pop_front() {
                    tokio::spawn(serve(stream, step, Arc::clone(&log), closing.clone()));
                }
            }
        });
        Self { url, received, closed }
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

/// Whether the request is a question about system tables, which is read with this setting.
async fn is_question(stream: &TcpStream) -> bool {
    let mut start = [0; 200];
    let length = stream.peek(&mut start).await.unwrap();
    String::from_utf8_lossy(&start[..length]).contains("output_format_json_quote_64bit_integers=0")
}

async fn serve(
    mut stream: TcpStream,
    step: MockStep,
    log: Arc<Mutex<Vec<Received>>>,
    closing: mpsc::UnboundedSender<()>,
) {
    match step {
        MockStep::NoRead => std::future::pending::<()>().await,
        MockStep::CloseEarly => {
            stream.read_exact(&mut [0; 200]).await.unwrap();
        }
        MockStep::NoResponse => {
            let request = read_request(&mut stream).await;
            log.lock().unwrap().push(request);
            let end = stream.read(&mut [0; 1]).await;
            assert!(matches!(end, Ok(0) | Err(_)), "the client sent more than its request");
            closing.send(()).unwrap();
        }
        MockStep::Respond(bytes) | MockStep::Truncate(bytes) => {
            let request = read_request(&mut stream).await;
            log.lock().unwrap().push(request);
            stream.write_all(&bytes).await.unwrap();
        }
    }
}

pub(super) async fn read_request(stream: &mut TcpStream) -> Received {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the client closed within the head");
    };
    let body = bytes.split_off(head_end);
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
    });
    let mut received = Received { head, body };
    while received.body.len() < length.unwrap_or(0) {
        assert_ne!(
            stream.read_buf(&mut received.body).await.unwrap(),
            0,
            "the client closed within the body"
        );
    }
    received
}
