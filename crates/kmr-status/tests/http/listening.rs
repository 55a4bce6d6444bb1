//! A server on a socket of its own, and its listeners.

use std::net::SocketAddr;
use std::time::Duration;

use kmr_status::{StatusError, StatusServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::kit::idle;

/// Opens `/events` and reads until the text holds `end`.
async fn listen(address: SocketAddr, end: &str) -> (TcpStream, String) {
    request(address, "/events", end).await
}

/// Opens `path` and reads until the text holds `end`.
async fn request(address: SocketAddr, path: &str, end: &str) -> (TcpStream, String) {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let reading = async {
        let mut buffer = [0; 4096];
        while !text.contains(end) {
            let read = connection.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "the connection ended: {text}");
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
    };
    timeout(Duration::from_secs(20), reading).await.unwrap();
    (connection, text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_receive_the_history_and_then_a_status_each_second() {
    let consumer = idle("g");
    let server = StatusServer::new(consumer.handle()).bind("127.0.0.1:0").spawn().await.unwrap();
    let (mut connection, text) = listen(server.address(), "\"version\":1").await;
    assert!(text.contains("content-type: text/event-stream"), "{text}");
    assert!(text.find("event: history").unwrap() < text.find("\"version\":1").unwrap(), "{text}");
    let started = std::time::Instant::now();
    let mut more = String::new();
    let mut buffer = [0; 4096];
    while more.matches("\"version\":1").count() < 2 {
        let read = timeout(Duration::from_secs(20), connection.read(&mut buffer)).await.unwrap().unwrap();
        more.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    assert!(started.elapsed() >= Duration::from_millis(1500), "two more take two seconds");
    server.stop();
    let ends = async { while connection.read(&mut buffer).await.unwrap() > 0 {} };
    timeout(Duration::from_secs(20), ends).await.expect("the stream ends with its server");
}

/// Also if the future of `serve` is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_end_with_their_server() {
    let consumer = idle("g");
    let ends = async |mut connection: TcpStream| {
        let mut rest = Vec::new();
        let end = timeout(Duration::from_secs(20), connection.read_to_end(&mut rest)).await;
        end.expect("the connection ends").unwrap();
    };
    let server = StatusServer::new(consumer.handle()).bind("127.0.0.1:0").spawn().await.unwrap();
    let (connection, _) = request(server.address(), "/livez", "\r\n\r\n").await;
    server.stop();
    ends(connection).await;

    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let server = StatusServer::new(consumer.handle()).bind(free.to_string());
    let serving = tokio::spawn(server.serve());
    while TcpStream::connect(free).await.is_err() {
        tokio::task::yield_now().await;
    }
    let (connection, _) = request(free, "/livez", "\r\n\r\n").await;
    serving.abort();
    ends(connection).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_listeners_is_bounded_and_a_place_is_free_when_one_goes() {
    let consumer = idle("g");
    let server = StatusServer::new(consumer.handle()).bind("127.0.0.1:0").spawn().await.unwrap();
    let address = server.address();
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(listen(address, "event: history").await);
    }
    let (_, text) = listen(address, "too many listeners").await;
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    open.pop();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let (_, text) = listen(address, "\r\n\r\n").await;
        if text.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "no place is free: {text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_is_named_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let consumer = idle("g");
    let error = StatusServer::new(consumer.handle()).bind(&address).spawn().await.unwrap_err();
    assert!(matches!(error, StatusError::Bind { .. }));
    let text = kmr_core::error_chain(&error);
    assert!(text.contains(&address) && text.contains("choose another port"), "{text}");
    for (wrong, remedy) in [("nonsense", "host:port"), ("203.0.113.1:9464", "0.0.0.0")] {
        let error = StatusServer::new(consumer.handle()).bind(wrong).serve().await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(wrong) && text.contains(remedy), "{text}");
    }
}
