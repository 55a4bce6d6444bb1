//! Proxies: their limits on requests, and responses that are not ClickHouse's.

use std::io::Read;
use std::time::SystemTime;

use kmr_core::{Attempt, Block, Chunk, Reducer, Rows, error_chain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::bisection::{batch_of, deliver};
use super::mock::{
    Mock, MockStep, asks_for_settings, description, description_with, response, settings_in_force, written,
};
use super::table::{Act, Table};
use super::{Line, failure, sink_error, writer};
use crate::clickhouse::{ClickHouseError, Compression, Stored};

/// nginx's response to a body above `client_max_body_size`.
fn too_large() -> MockStep {
    response("413 Request Entity Too Large", &[("Server", "nginx")], "<html>413</html>")
}

#[tokio::test]
async fn a_response_of_a_proxy_names_itself_and_its_remedy() {
    for (status, retryable, words) in [
        ("301 Moved Permanently", false, "redirects (to https://elsewhere/ch)"),
        ("307 Temporary Redirect", false, "use the final address"),
        ("308 Permanent Redirect", false, "use the final address"),
        ("400 Bad Request", false, "https://"),
        ("401 Unauthorized", false, ".bearer_token()"),
        ("403 Forbidden", false, "the rules of any proxy"),
        ("404 Not Found", false, "path"),
        ("405 Method Not Allowed", false, "POST"),
        ("407 Proxy Authentication Required", false, "credentials of its own"),
        ("408 Request Timeout", true, "a retry may succeed"),
        ("411 Length Required", false, "own address"),
        ("414 URI Too Long", false, ".setting()"),
        ("415 Unsupported Media Type", false, "Compression::None"),
        ("421 Misdirected Request", true, "a retry may succeed"),
        ("425 Too Early", true, "a retry may succeed"),
        ("429 Too Many Requests", true, "a retry may succeed"),
        ("431 Request Header Fields Too Large", false, "headers"),
        ("451 Unavailable For Legal Reasons", false, "HTTP interface"),
        ("500 Internal Server Error", true, "a retry may succeed"),
        ("501 Not Implemented", false, "own address"),
        ("502 Bad Gateway", true, "the log of the proxy"),
        ("503 Service Unavailable", true, "the log of the proxy"),
        ("504 Gateway Timeout", true, "the log of the proxy"),
        ("511 Network Authentication Required", false, "login"),
        ("520 Unknown", true, "a retry may succeed"),
    ] {
        let location = [("Location", "https://elsewhere/ch?password=s3cret")];
        let (found, error) = failure(response(status, &location, "<html>no</html>")).await;
        let text = error.to_string();
        let words = words.strip_prefix("redirects ").unwrap_or(words);
        assert!(text.contains(words) && text.contains("proxy or another server"), "{status}: {text}");
        assert!(text.contains("<html>no</html>"), "{status}: {text}");
        assert_eq!(found, retryable, "{status}: {text}");
    }
}

#[tokio::test]
async fn a_status_with_headers_of_clickhouse_is_not_blamed_on_a_proxy() {
    let own = response("503 Service Unavailable", &[("X-ClickHouse-Server-Display-Name", "db")], "");
    let (retryable, error) = failure(own).await;
    assert!(retryable && !error.to_string().contains("another server"), "{error}");
}

#[tokio::test]
async fn an_empty_success_without_headers_of_clickhouse_is_in_doubt_if_the_start_had_them() {
    let described = description_with(&[("X-ClickHouse-Server-Display-Name", "db")]);
    let mock = Mock::new(vec![described, response("200 OK", &[("Server", "nginx")], ""), written(2)]).await;
    let batch = super::batch(writer(&mock.url)).await;
    let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
    assert!(retryable && error.stored() == Stored::Unknown, "{error}");
    let text = error.to_string();
    assert!(text.contains("HTTP 200") && text.contains("proxy") && text.contains("lacks"), "{text}");
    assert_eq!(batch.deliver(Attempt::new(2)).await.unwrap().output.rows, 2);
    let received = mock.received();
    assert_eq!(received[1].head, received[2].head);
}

#[tokio::test]
async fn a_batch_above_the_body_limit_of_a_proxy_is_inserted_in_parts() {
    let table = Table::new(|_, ids| if ids.len() > 3 { Act::Reject(too_large()) } else { Act::Store }).await;
    let mut writer = writer(&table.url);
    writer.start().await.unwrap();
    let delivered = deliver(&batch_of(&mut writer, 20).await).await;
    assert!(delivered.rejected.is_empty());
    assert_eq!((delivered.output.rows, delivered.output.attempts), (20, 1));
    assert_eq!(table.sorted_ids(), (0..20).collect::<Vec<_>>());
    let contents = table.contents.lock().unwrap();
    let stored = contents.inserts.iter().filter(|(rows, _)| *rows <= 3).count();
    assert_eq!(contents.tokens.len(), stored, "two parts have the same token");
}

#[tokio::test]
async fn a_row_above_the_body_limit_of_a_proxy_is_rejected_alone() {
    let table =
        Table::new(|_, ids| if ids.contains(&7) { Act::Reject(too_large()) } else { Act::Store }).await;
    let mut writer = writer(&table.url);
    writer.start().await.unwrap();
    let delivered = deliver(&batch_of(&mut writer, 20).await).await;
    let rejected: Vec<_> = delivered.rejected.iter().map(|row| row.index).collect();
    assert_eq!(rejected, [7]);
    let text = error_chain(&*delivered.rejected[0].error);
    assert!(text.contains("HTTP 413") && text.contains("client_max_body_size"), "{text}");
    assert_eq!(table.sorted_ids(), (0..20).filter(|id| *id != 7).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_that_may_be_stored_is_not_inserted_in_parts() {
    let table = Table::new(|number, _| match number {
        0 => Act::StoreBut(MockStep::Truncate(Vec::new())),
        _ => Act::Reject(too_large()),
    })
    .await;
    let mut writer = writer(&table.url);
    writer.start().await.unwrap();
    let batch = batch_of(&mut writer, 20).await;
    assert!(batch.deliver(Attempt::new(1)).await.unwrap_err().is_retryable());
    let (retryable, error) = sink_error(batch.deliver(Attempt::new(2)).await.unwrap_err());
    assert!(!retryable && error.to_string().contains(".max_bytes()"), "{error}");
    assert_eq!((table.sorted_ids().len(), table.inserts()), (20, 2));
}

#[tokio::test]
async fn a_planned_block_above_the_body_limit_stops_and_names_the_limit() {
    let table = Table::new(|_, _| Act::Reject(too_large())).await;
    let mut writer = writer(&table.url);
    writer.start().await.unwrap();
    let batch = batch_of(&mut writer, 20).await;
    let block = Attempt::new(1).with_block(Block::new("the-token", SystemTime::now(), false));
    let (retryable, error) = sink_error(batch.deliver(block).await.unwrap_err());
    assert!(!retryable && error.to_string().contains("raise that limit (nginx"), "{error}");
    assert!(error.to_string().contains("already planned"), "{error}");
    assert_eq!(table.inserts(), 1);
}

/// The answer to the start's question for the settings, if the request is that.
fn settings_of_the_start(request: &str) -> Option<Vec<u8>> {
    let (head, body) = request.split_once("\r\n\r\n")?;
    if !asks_for_settings(head, body.as_bytes()) {
        return None;
    }
    match response("200 OK", &[], &settings_in_force(head, &[])) {
        MockStep::Respond(bytes) => Some(bytes),
        _ => None,
    }
}

#[tokio::test]
async fn a_proxy_that_removes_parameters_stops_the_start_and_is_named() {
    const REMOVED: [(&[&str], &str); 3] = [
        (&["insert_deduplication_token"], "kmr-start"),
        (&["async_insert"], "0"),
        (&["timeout_overflow_mode"], "throw"),
    ];
    for (removed, value) in REMOVED {
        let table = Table::new(|_, _| Act::Store).await;
        table.contents.lock().unwrap().removed = removed;
        let error = error_chain(&*writer(&table.url).start().await.unwrap_err());
        let text = format!("({}={value:?} is \"default\")", removed[0]);
        assert!(error.contains(&text) && error.contains("proxy"), "{error}");
        assert!(error.contains("forward all of them") && error.contains("127.0.0.1"), "{error}");
    }
}

/// A proxy that reads only the head of an insert, responds, and closes. The client has more to
/// send, so the kernel resets the connection.
#[tokio::test]
async fn a_rejection_before_the_end_of_the_body_is_read_although_the_connection_is_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let MockStep::Respond(described) = description() else { unreachable!() };
        let MockStep::Respond(rejected) = too_large() else { unreachable!() };
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 4096];
            let read = stream.read(&mut bytes).await.unwrap();
            let request = String::from_utf8_lossy(&bytes[..read]);
            let settings = settings_of_the_start(&request);
            let answer = match () {
                () if request.contains("DESCRIBE") => &described,
                () => settings.as_ref().unwrap_or(&rejected),
            };
            let _ = stream.write_all(answer).await;
        }
    });
    let mut writer = writer(&url).compression(Compression::None);
    writer.start().await.unwrap();
    for _ in 0..10 {
        let mut rows = writer.new_rows();
        rows.push(Line { id: 1, text: "x".repeat(16 << 20) }).unwrap();
        writer.accept(Chunk::new(rows, Vec::new())).unwrap();
        let batch = writer.freeze().unwrap();
        let block = Attempt::new(1).with_block(Block::new("the-token", SystemTime::now(), false));
        let (_, error) = sink_error(batch.deliver(block).await.unwrap_err());
        assert!(matches!(error, ClickHouseError::Status { status: 413, .. }), "{}", error_chain(&error));
    }
}

#[tokio::test]
async fn a_statement_that_is_too_long_for_a_request_line_is_sent_before_the_rows() {
    for &compression in Compression::ALL {
        let mock = Mock::new(vec![description(), written(5), written(5)]).await;
        let database = "d".repeat(8_000);
        let mut writer = writer(&mock.url).database(&database).compression(compression);
        writer.start().await.unwrap();
        deliver(&batch_of(&mut writer, 5).await).await;
        let insert = &mock.received()[1];
        assert!(!insert.head.contains("?query=") && insert.head.len() < 2_000, "{}", insert.head);
        assert!(insert.head.contains("insert_deduplication_token=kmr-"), "{}", insert.head);
        let body = match compression {
            Compression::None => insert.body.clone(),
            Compression::Lz4 => {
                let (mut body, mut frames) =
                    (Vec::new(), lz4_flex::frame::FrameDecoder::new(&insert.body[..]));
                // Each pass reads one frame.
                while frames.read_to_end(&mut body).unwrap() > 0 {}
                body
            }
            #[cfg(feature = "clickhouse-zstd")]
            Compression::Zstd => zstd::decode_all(&insert.body[..]).unwrap(),
        };
        let statement =
            format!("INSERT INTO `{database}`.`lines` (`id`, `text`) FORMAT RowBinaryWithNamesAndTypes\n");
        let rows = body.strip_prefix(statement.as_bytes()).expect("the body starts with the statement");
        assert!(rows.starts_with(b"\x02\x02id\x04text") && rows.ends_with(b"\x05row 4"), "{rows:?}");
    }
}

#[tokio::test]
async fn all_settings_that_a_proxy_removes_are_named() {
    let table = Table::new(|_, _| Act::Store).await;
    table.contents.lock().unwrap().removed =
        &["deduplicate_blocks_in_dependent_materialized_views", "distributed_foreground_insert", "limit"];
    let error = error_chain(&*writer(&table.url).start().await.unwrap_err());
    for (name, value) in [
        ("deduplicate_blocks_in_dependent_materialized_views", "1"),
        ("distributed_foreground_insert", "1"),
        ("limit", "0"),
    ] {
        assert!(error.contains(&format!("{name}={value:?} is \"default\"")), "{error}");
    }
    assert!(!error.contains("async_insert"), "{error}");
}
