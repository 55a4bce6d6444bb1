//! What a client makes of servers that answer well, badly, or not at all.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

use super::*;
use crate::top::fixture;

const TOKEN: &str = "correct-horse-battery";

/// A server that sends these bytes on each connection after a request, and keeps what it read. It
/// ends when it is dropped.
struct Mock {
    address: Address,
    requests: Receiver<String>,
    thread: Option<JoinHandle<()>>,
}

impl Mock {
    fn start(response: impl Into<Vec<u8>>) -> Self {
        Self::at("127.0.0.1:0", response)
    }

    fn at(address: &str, response: impl Into<Vec<u8>>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = Address::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let (seen, requests) = mpsc::channel();
        let response = response.into();
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).unwrap_or(0);
                // The connection that ends the server has no request.
                if read == 0 {
                    return;
                }
                let _ = seen.send(String::from_utf8_lossy(&request[..read]).into_owned());
                let _ = stream.write_all(&response);
            }
        });
        Self { address, requests, thread: Some(thread) }
    }

    async fn status(&self) -> Result<Answer, Problem> {
        Client { timeout: Duration::from_secs(20), ..Client::new(self.address.clone()) }.status().await
    }

    async fn act(&self, token: &str) -> Result<(), String> {
        Client::new(self.address.clone()).act(Action::Pause, &Token::new(token, "here").unwrap()).await
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        drop(TcpStream::connect(self.address.text()));
        self.thread.take().map(JoinHandle::join);
    }
}

fn response(code: u16, body: &str) -> String {
    format!("HTTP/1.1 {code} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_status_is_read_below_the_path_of_its_server() {
    let mock = Mock::start(response(200, &fixture::status(0).to_string()));
    let status = mock.status().await.unwrap().status;
    assert_eq!((status.group.as_str(), status.partitions.len()), ("events-to-clickhouse", 4));
    let request = mock.requests.recv().unwrap();
    assert!(
        request.starts_with("GET /status HTTP/1.1\r\n") && !request.contains("authorization"),
        "{request}"
    );
}

#[tokio::test]
async fn a_probe_passes_with_200_and_fails_with_503() {
    for (code, passes) in [(200, true), (503, false)] {
        let mock = Mock::start(response(code, r#"{"live":true,"reason":"3 partitions"}"#));
        let answer = Client::new(mock.address.clone()).probe("/livez").await;
        assert_eq!(answer, Ok((passes, "3 partitions".to_owned())));
        assert!(mock.requests.recv().unwrap().starts_with("GET /livez HTTP/1.1\r\n"));
    }
    for (code, body, problem) in [
        (404, "{}", Problem::Code(404)),
        (200, "welcome", Problem::NoStatus),
        (503, r#"{"error":"busy"}"#, Problem::NoStatus),
    ] {
        let mock = Mock::start(response(code, body));
        assert_eq!(Client::new(mock.address.clone()).probe("/livez").await, Err(problem));
    }
}

#[tokio::test]
async fn every_bad_answer_has_a_reason() {
    for (answer, expected) in [
        (response(404, "not found"), "HTTP error: status 404. Another server has the port"),
        (response(401, ""), "requires a log-in"),
        (response(302, ""), "the address that it redirects to"),
        (response(500, ""), "HTTP error: status 500"),
        (response(200, "<html>"), "no status: the answer is not the status of a kmr consumer"),
        (response(200, "{}"), "no status: the answer is not"),
        (response(200, "{\"version\":2,\"state\":\"x\"}"), "version 2, and this kmr reads version 1"),
        (
            response(200, "{\"version\":1,\"state\":\"x\",\"stages\":7}"),
            "no status: invalid type: integer `7`",
        ),
        ("SSH-2.0-OpenSSH\r\n".to_owned(), "no HTTP: "),
        (String::new(), "no HTTP: the connection was closed without an answer"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{".to_owned(), "no HTTP: "),
        (format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", LARGEST + 1), "larger than 64 MiB"),
    ] {
        let mock = Mock::start(answer.clone());
        let problem = mock.status().await.unwrap_err().to_string();
        assert!(problem.contains(expected), "{answer:?}: {problem}");
        assert!(!problem.contains(|c: char| c.is_control()), "{problem:?}");
    }
}

#[tokio::test]
async fn servers_that_cannot_be_reached_or_do_not_answer_are_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    let client = Client { timeout: Duration::from_millis(100), ..Client::new(address) };
    assert_eq!(client.status().await.unwrap_err(), Problem::NoAnswer(Duration::from_millis(100)));
    drop(listener);
    let closed = client.status().await.unwrap_err();
    assert!(matches!(&closed, Problem::Unreachable(why) if why.contains("Connection refused")), "{closed:?}");
    let unknown = Client::new(Address::parse("no-such-host.invalid").unwrap()).status().await.unwrap_err();
    assert_eq!(unknown.word(), "unreachable", "{unknown:?}");
}

#[tokio::test]
async fn a_server_that_comes_back_is_read_again() {
    let mock = Mock::start(response(200, &fixture::status(0).to_string()));
    let (client, address) = (Client::new(mock.address.clone()), mock.address.text().to_owned());
    client.status().await.unwrap();
    drop(mock);
    let gone = client.status().await.unwrap_err();
    assert_eq!(gone.word(), "unreachable", "{gone}");
    let _mock = Mock::at(&address, response(200, &fixture::status(1).to_string()));
    client.status().await.unwrap();
}

#[tokio::test]
async fn actions_carry_the_token_and_errors_never_show_it() {
    let mock = Mock::start(response(202, "{\"accepted\":\"pause\"}"));
    mock.act(TOKEN).await.unwrap();
    let request = mock.requests.recv().unwrap();
    assert!(request.starts_with("POST /actions/pause HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Bearer correct-horse-battery\r\n"), "{request}");
    let off = "{\"error\":\"actions are off\",\"remedy\":\"give a token\u{9b}\"}";
    for (answer, expected) in [
        (response(401, "{\"error\":\"wrong or missing token\"}"), "the server does not accept this token"),
        (response(403, off), "actions are off: give a token\\u{9b}"),
        (response(404, ""), "status 404"),
        (response(200, "{}"), "status 200"),
        (String::new(), "closed without an answer"),
    ] {
        let error = Mock::start(answer).act(TOKEN).await.unwrap_err();
        assert!(error.contains(expected) && !error.contains(TOKEN), "{error}");
    }
}
