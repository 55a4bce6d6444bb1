//! The whole sink against a server that fails on demand.

mod bisection;
mod connections;
mod descriptions;
mod doubt;
mod faults;
#[cfg(feature = "metrics")]
mod metrics;
mod mock;
mod planned_blocks;
mod proxies;
mod quorum;
mod rotation;
mod secrets;
mod start;
mod table;
#[cfg(feature = "clickhouse-tls")]
mod tls;
#[cfg(feature = "clickhouse-tls")]
mod tls_rotation;

use std::io::Read;
use std::time::Duration;

use ::clickhouse::Row;
use kmr_core::{Attempt, BoxError, Chunk, Delivery, DeliveryError, Reducer, Rows, error_chain};
use serde::Serialize;

use self::mock::{Mock, MockStep, description, response, written};
use super::{ClickHouseError, ClickHouseWriter, Compression, ErrorClass, InsertReceipt, Phase};

#[derive(Row, Serialize)]
struct Stamp {
    at: i64,
}

#[derive(Row, Serialize)]
struct Line {
    id: u64,
    text: String,
}

type Batch = Box<dyn Delivery<Output = InsertReceipt>>;

fn writer(url: &str) -> ClickHouseWriter<Line> {
    ClickHouseWriter::new(url, "lines").database("db").user("me").password("s3cret")
}

/// A frozen batch of two rows.
async fn batch(mut writer: ClickHouseWriter<Line>) -> Batch {
    writer.start().await.unwrap();
    let mut rows = writer.new_rows();
    rows.push(Line { id: 1, text: "one".into() }).unwrap();
    rows.push(Line { id: 2, text: "two".into() }).unwrap();
    writer.accept(Chunk::new(rows, Vec::new())).unwrap();
    writer.freeze().unwrap()
}

/// The error of a delivery whose insert gets the response `step`.
async fn failure(step: MockStep) -> (bool, ClickHouseError) {
    // The last two steps serve a schema error, after which the sink describes the table and inserts
    // again.
    let mock = Mock::without_system_tables(vec![description(), step.clone(), description(), step]).await;
    let batch = batch(writer(&mock.url)).await;
    sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err())
}

fn sink_error(error: DeliveryError) -> (bool, ClickHouseError) {
    let retryable = error.is_retryable();
    let source = *error.into_source().downcast::<ClickHouseError>().unwrap();
    assert_eq!(retryable, source.is_retryable());
    let text = error_chain(&source);
    assert!(!text.contains("s3cret"), "{text}");
    (retryable, source)
}

async fn start_failure(writer: &mut ClickHouseWriter<Line>) -> String {
    let error: BoxError = writer.start().await.unwrap_err();
    let text = error_chain(&*error);
    assert!(!text.contains("s3cret"), "{text}");
    text
}

const EXCEPTION: &str = "X-ClickHouse-Exception-Code";

#[tokio::test]
async fn an_insert_carries_header_rows_token_and_credentials() {
    let mock = Mock::new(vec![description(), written(2)]).await;
    let batch = batch(writer(&mock.url).compression(Compression::None).setting("insert_quorum", "2")).await;
    let receipt = batch.deliver(Attempt::new(1)).await.unwrap().output;
    assert_eq!((receipt.rows, receipt.written_rows, receipt.bytes), (2, Some(2), 24));
    assert_eq!((&*receipt.table, receipt.query_id.as_deref()), ("`db`.`lines`", Some("q-1")));

    let received = mock.received();
    assert_eq!(received[0].body, b"DESCRIBE TABLE `db`.`lines` FORMAT JSONEachRow");
    let insert = &received[1];
    let mut body = b"\x02\x02id\x04text\x06UInt64\x06String".to_vec();
    body.extend_from_slice(b"\x01\0\0\0\0\0\0\0\x03one\x02\0\0\0\0\0\0\0\x03two");
    assert_eq!(insert.body, body);
    assert_eq!(receipt.sent_bytes as usize, body.len());
    for part in [
        "POST /?query=INSERT%20INTO%20%60db%60.%60lines%60%20%28%60id%60%2C%20%60text%60%29%20FORMAT%20RowBinaryWithNamesAndTypes&",
        "&wait_end_of_query=1&async_insert=0&max_insert_block_size=1048449&min_insert_block_size_rows=1048449&",
        "&insert_deduplication_token=kmr-",
        "&insert_quorum=2 HTTP/1.1\r\n",
        "x-clickhouse-user: me\r\n",
        "x-clickhouse-key: s3cret\r\n",
    ] {
        assert!(insert.head.contains(part), "{part} is not in {}", insert.head);
    }
}

#[tokio::test]
async fn a_retry_sends_the_same_bytes_under_the_same_token() {
    let overloaded =
        response("500 Internal Server Error", &[(EXCEPTION, "241")], "Code: 241. DB::Exception: Memory");
    let mock = Mock::without_system_tables(vec![description(), overloaded, written(2)]).await;
    let batch = batch(writer(&mock.url)).await;
    assert!(batch.deliver(Attempt::new(1)).await.unwrap_err().is_retryable());
    assert_eq!(batch.deliver(Attempt::new(2)).await.unwrap().output.attempts, 2);

    let received = mock.received();
    assert_eq!(received[1].head, received[2].head);
    assert_eq!(received[1].body, received[2].body);
    assert!(received[1].head.contains("content-encoding: lz4\r\n"), "{}", received[1].head);
    let mut body = Vec::new();
    lz4_flex::frame::FrameDecoder::new(&received[1].body[..]).read_to_end(&mut body).unwrap();
    assert!(body.starts_with(b"\x02\x02id\x04text") && body.ends_with(b"\x03two"));
}

#[tokio::test]
async fn exceptions_have_the_class_of_their_code() {
    let table = [
        (
            "404 Not Found",
            "60",
            "Code: 60. DB::Exception: Table db.lines does not exist",
            ErrorClass::Fatal,
            "create the table",
        ),
        (
            "403 Forbidden",
            "516",
            "Code: 516. DB::Exception: me: Authentication failed",
            ErrorClass::Fatal,
            ".password()",
        ),
        (
            "500 Internal Server Error",
            "497",
            "Code: 497. DB::Exception: Not enough privileges",
            ErrorClass::Fatal,
            "grant INSERT",
        ),
        (
            "500 Internal Server Error",
            "252",
            "Code: 252. DB::Exception: Too many parts (300)",
            ErrorClass::TooManyParts,
            "max_rows",
        ),
        (
            "400 Bad Request",
            "16",
            "Code: 16. DB::Exception: No such column text in table db.lines",
            ErrorClass::Schema,
            "the table changed",
        ),
        ("200 OK", "209", "", ErrorClass::InDoubt, "code 209 (HTTP 200)"),
    ];
    for (status, code, body, class, words) in table {
        let (retryable, error) = failure(response(status, &[(EXCEPTION, code)], body)).await;
        assert_eq!(retryable, class.is_retryable(), "{error}");
        assert_eq!(error.code(), code.parse().ok());
        assert!(
            matches!(error, ClickHouseError::Exception { class: found, .. } if found == class),
            "{error}"
        );
        let text = error.to_string();
        assert!(text.contains(words) && text.contains("`db`.`lines`"), "{text}");
    }
}

#[tokio::test]
async fn an_exception_in_the_body_of_a_200_is_an_error() {
    let (retryable, error) =
        failure(response("200 OK", &[], "\nCode: 241. DB::Exception: Memory limit")).await;
    assert!(retryable);
    assert_eq!(error.code(), Some(241));
}

#[tokio::test]
async fn statuses_without_an_exception_decide_alone() {
    for (status, body, retryable, words) in [
        ("500 Internal Server Error", "", true, "HTTP 500"),
        ("502 Bad Gateway", "<html>upstream</html>", true, "\"<html>upstream</html>\""),
        ("429 Too Many Requests", "", true, "HTTP 429"),
        ("401 Unauthorized", "key s3cret is wrong", false, ".user() and .password()"),
        ("403 Forbidden", "", false, ".user() and .password()"),
        ("404 Not Found", "no such page", false, "ClickHouse's HTTP interface"),
        ("302 Found", "", false, "redirects"),
        ("204 No Content", "", false, "other than 200"),
        ("200 OK", "<html>please log in</html>", false, "please log in"),
    ] {
        let (found, error) = failure(response(status, &[("Location", "http://elsewhere/")], body)).await;
        let text = error.to_string();
        assert_eq!(found, retryable, "{text}");
        assert!(text.contains(words) && text.contains("127.0.0.1"), "{text}");
    }
}

#[tokio::test]
async fn fewer_written_rows_than_sent_is_an_error_and_more_is_not() {
    let (retryable, error) = failure(written(1)).await;
    assert!(!retryable);
    assert!(error.to_string().contains("1 rows written to table `db`.`lines` of 2 sent"), "{error}");

    for step in [written(4), response("200 OK", &[], "")] {
        let mock = Mock::new(vec![description(), step]).await;
        let batch = batch(writer(&mock.url)).await;
        assert_eq!(batch.deliver(Attempt::new(1)).await.unwrap().output.rows, 2);
    }
}

#[tokio::test]
async fn broken_connections_are_retryable() {
    for step in [
        MockStep::CloseEarly,
        MockStep::Truncate(Vec::new()),
        MockStep::Truncate(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
        MockStep::Truncate(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_vec()),
        MockStep::Truncate(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab".to_vec()),
        MockStep::Truncate(b"nonsense\r\n\r\n".to_vec()),
    ] {
        let shown = format!("{step:?}");
        let (retryable, error) = failure(step).await;
        assert!(retryable && matches!(error, ClickHouseError::Broken { .. }), "{shown}: {error}");
    }
}

#[tokio::test]
async fn an_unreachable_server_is_retryable() {
    let mock = Mock::new(vec![description()]).await;
    let batch = batch(writer(&mock.url)).await;
    let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
    assert!(retryable && matches!(error, ClickHouseError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("check that it runs"), "{error}");
}

#[tokio::test]
async fn a_missing_response_times_out() {
    let mock = Mock::new(vec![description(), MockStep::NoResponse]).await;
    let batch = batch(writer(&mock.url).response_timeout(Duration::from_millis(500))).await;
    let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
    assert!(retryable);
    assert!(matches!(error, ClickHouseError::TimedOut { phase: Phase::Response, .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_reads_nothing_times_out_while_writing() {
    let mock = Mock::new(vec![description(), MockStep::NoRead]).await;
    let mut writer =
        writer(&mock.url).compression(Compression::None).write_timeout(Duration::from_millis(500));
    writer.start().await.unwrap();
    let mut rows = writer.new_rows();
    // More than the buffers of both sockets hold.
    rows.push(Line { id: 1, text: "x".repeat(32 << 20) }).unwrap();
    writer.accept(Chunk::new(rows, Vec::new())).unwrap();
    let batch = writer.freeze().unwrap();
    let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
    assert!(retryable);
    assert!(matches!(error, ClickHouseError::TimedOut { phase: Phase::Write, .. }), "{error}");
}

#[tokio::test]
async fn a_dropped_delivery_closes_its_connection_at_once() {
    let mut mock = Mock::new(vec![description(), MockStep::NoResponse, written(2)]).await;
    let batch = batch(writer(&mock.url)).await;
    tokio::select! {
        _ = batch.deliver(Attempt::new(1)) => panic!("the server does not respond"),
        () = async { while mock.received().len() < 2 { tokio::task::yield_now().await } } => {}
    }
    tokio::time::timeout(Duration::from_secs(5), mock.closed.recv()).await.expect("still open").unwrap();
    // The batch is complete: the next attempt sends all of it.
    assert_eq!(batch.deliver(Attempt::new(2)).await.unwrap().output.rows, 2);
    let received = mock.received();
    assert_eq!(received[1].body, received[2].body);
}

#[tokio::test]
async fn the_start_waits_for_a_server_that_starts_late() {
    let busy = response("503 Service Unavailable", &[], "starting");
    let mock = Mock::new(vec![MockStep::Truncate(Vec::new()), busy, description()]).await;
    writer(&mock.url).start().await.unwrap();
    assert_eq!(mock.received().len(), 3);
}

#[tokio::test]
async fn the_start_fails_with_the_address_of_an_unavailable_server() {
    let mock = Mock::new(Vec::new()).await;
    let address = mock.url.strip_prefix("http://").unwrap().to_owned();
    let text = start_failure(&mut writer(&mock.url).start_timeout(Duration::from_millis(300))).await;
    assert!(text.contains(&address) && text.contains("not ready within 300ms ("), "{text}");
    assert!(text.contains("check that it runs"), "{text}");

    let mock = Mock::new(vec![MockStep::NoResponse]).await;
    let text = start_failure(&mut writer(&mock.url).start_timeout(Duration::from_millis(50))).await;
    assert!(text.contains("not ready within 50ms") && text.contains("the response took longer"), "{text}");
}

#[tokio::test]
async fn rejections_at_the_start_are_final() {
    for (step, words) in [
        (response("404 Not Found", &[(EXCEPTION, "60")], "Code: 60. DB::Exception: no"), "create the table"),
        (
            response("404 Not Found", &[(EXCEPTION, "81")], "Code: 81. DB::Exception: no"),
            "create the database",
        ),
        (response("403 Forbidden", &[(EXCEPTION, "516")], "Code: 516. DB::Exception: s3cret"), ".password()"),
        (response("200 OK", &[], "<html>"), "ClickHouse's HTTP interface"),
        (response("200 OK", &[], ""), "ClickHouse's HTTP interface"),
        (
            response("200 OK", &[], "{\"name\":\"id\",\"type\":\"UInt64\",\"default_type\":\"\"}"),
            "no column `text`, which is a field of Line",
        ),
    ] {
        let mock = Mock::new(vec![step]).await;
        let text = start_failure(&mut writer(&mock.url)).await;
        assert!(text.contains(words), "{text}");
        assert_eq!(mock.received().len(), 1);
    }
}

#[tokio::test]
async fn the_range_of_a_time_is_that_of_its_zone() {
    let described = response(
        "200 OK",
        &[],
        "{\"name\":\"at\",\"type\":\"DateTime64(3, 'Asia/Tokyo')\",\"default_type\":\"\"}\n",
    );
    let years = response("200 OK", &[], "{\"date_32\":9999,\"date_time_64\":9999}\n");
    let limits = response("200 OK", &[], "{\"limits\":[[-62135630339,253402268399]]}\n");
    let mock = Mock::new(vec![described, years, limits]).await;
    let mut writer = ClickHouseWriter::<Stamp>::new(&mock.url, "lines").database("db");
    writer.start().await.unwrap();
    let query = String::from_utf8(mock.received()[2].body.clone()).unwrap();
    assert!(query.contains("'9999-12-31 23:59:59', 0, 'Asia/Tokyo'"), "{query}");
    let mut rows = writer.new_rows();
    let (first, last) = (-62_135_630_339_000, 253_402_268_399_999);
    rows.push(Stamp { at: first }).unwrap();
    rows.push(Stamp { at: last }).unwrap();
    for at in [first - 1, last + 1] {
        let text = error_chain(&*rows.push(Stamp { at }).unwrap_err());
        assert!(text.contains("0000-12-31 14:41:01") || text.contains("9999-12-31 14:59:59 UTC"), "{text}");
    }
}

#[tokio::test]
async fn an_endless_response_is_truncated() {
    let (retryable, error) = failure(response("200 OK", &[], &"x".repeat(8 << 20))).await;
    assert!(!retryable);
    assert!(error.to_string().len() < 1_000, "{error}");
}

#[tokio::test]
async fn settings_that_the_server_does_not_know_are_left_out_before_the_first_insert() {
    let unknown = |name: &str| {
        let text = format!("Code: 115. DB::Exception: Unknown setting '{name}'. (UNKNOWN_SETTING)");
        response("404 Not Found", &[(EXCEPTION, "115")], &text)
    };
    let first = unknown("use_strict_insert_block_limits");
    let second = unknown("distributed_foreground_insert");
    let mock = Mock::new(vec![first, second, description(), written(2)]).await;
    batch(writer(&mock.url)).await.deliver(Attempt::new(1)).await.unwrap();
    let heads: Vec<_> = mock.received().into_iter().map(|request| request.head).collect();
    assert!(heads[0].contains("&use_strict_insert_block_limits=0&"), "{}", heads[0]);
    // The description tries the settings of inserts.
    assert!(heads[0].contains("async_insert=0&max_insert_block_size="), "{}", heads[0]);
    for head in &heads[2..] {
        assert!(!head.contains("use_strict_insert") && !head.contains("distributed_foreground"), "{head}");
        assert!(head.contains("&insert_distributed_sync=1"), "{head}");
        assert!(head.contains("&timeout_overflow_mode=throw&"), "{head}");
    }
}

#[tokio::test]
async fn a_constraint_on_a_setting_stops_the_start_and_is_named() {
    let text = "Code: 452. DB::Exception: Setting async_insert should not be changed. (SETTING_CONSTRAINT_VIOLATION)";
    let mock = Mock::new(vec![response("500 Internal Server Error", &[(EXCEPTION, "452")], text)]).await;
    let text = start_failure(&mut writer(&mock.url)).await;
    assert!(text.contains("async_insert should not be changed") && text.contains("profile"), "{text}");
    assert_eq!(mock.received().len(), 1);
}

#[tokio::test]
async fn asynchronous_inserts_work_on_servers_that_do_not_combine_them_with_views() {
    let text = "Code: 344. DB::Exception: Deduplication in dependent materialized view cannot work together with async \
                inserts. Please disable either `deduplicate_blocks_in_dependent_materialized_views` or `async_insert` setting.";
    let rejected = response("500 Internal Server Error", &[(EXCEPTION, "344")], text);
    // These servers do not count the rows of an asynchronous insert either.
    let mock = Mock::new(vec![description(), rejected, written(0), written(0)]).await;
    let batch = batch(writer(&mock.url).async_insert(true)).await;
    for attempt in [1, 2] {
        let receipt = batch.deliver(Attempt::new(attempt)).await.unwrap().output;
        assert_eq!((receipt.rows, receipt.written_rows), (2, None));
    }
    let heads: Vec<_> = mock.received().into_iter().map(|request| request.head).collect();
    assert!(heads[1].contains("&deduplicate_blocks_in_dependent_materialized_views=1&"), "{}", heads[1]);
    assert!(heads[2].contains("&deduplicate_blocks_in_dependent_materialized_views=0&"), "{}", heads[2]);
    assert!(heads[2].contains("&async_insert_deduplicate=0&"), "{}", heads[2]);
}
