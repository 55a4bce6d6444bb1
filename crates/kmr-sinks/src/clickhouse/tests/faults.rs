//! A batch against a server that fails for a while: every row is stored afterwards, and only once
//! where the server knows tokens.

use std::time::Duration;

use kmr_core::{Attempt, error_chain};
use tokio::time::Instant;

use super::bisection::{batch_of, deliver};
use super::mock::{MockStep, description, response};
use super::table::{Act, Table, exception};
use super::{sink_error, writer};
use crate::clickhouse::{ClickHouseError, Compression};

fn raw(text: &str) -> MockStep {
    MockStep::Respond(text.as_bytes().to_vec())
}

/// Delivers two batches to a server that performs `step` for the first inserts, stored or not.
/// Returns the attempts of the first batch.
async fn recovers(step: MockStep, times: usize, stored: bool) -> u32 {
    let shown = format!("{step:?}");
    let table = Table::new(move |number, _| match number {
        n if n >= times => Act::Store,
        _ if stored => Act::StoreBut(step.clone()),
        _ => Act::Reject(step.clone()),
    })
    .await;
    let limit = Duration::from_millis(200);
    let mut writer = writer(&table.url).response_timeout(limit).write_timeout(limit);
    kmr_core::Reducer::start(&mut writer).await.unwrap();
    let attempts = deliver(&batch_of(&mut writer, 50).await).await.output.attempts;
    assert_eq!(deliver(&batch_of(&mut writer, 1).await).await.output.attempts, 1, "{shown}");
    let mut expected: Vec<u64> = (0..50).collect();
    expected.insert(0, 0); // of the second batch
    assert_eq!(table.sorted_ids(), expected, "{shown}, stored: {stored}");
    attempts
}

#[tokio::test]
async fn every_row_is_stored_once_after_every_fault() {
    let steps = [
        response("500 Internal Server Error", &[], ""),
        response("500 Internal Server Error", &[], "something broke"),
        response("502 Bad Gateway", &[], "<html>upstream</html>"),
        response("503 Service Unavailable", &[("Retry-After", "1")], ""),
        response("200 OK", &[("X-ClickHouse-Exception-Code", "241")], ""),
        response("200 OK", &[], "\nCode: 241. DB::Exception: Memory limit exceeded"),
        exception(241, "Memory limit exceeded"),
        exception(999, "Keeper"),
        // Truncated: before the first byte, in the head, in a body of known length, in a chunk.
        MockStep::Truncate(Vec::new()),
        MockStep::Truncate(b"HTTP/1.1 200 O".to_vec()),
        MockStep::Truncate(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_vec()),
        MockStep::Truncate(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab".to_vec()),
        // Content-Length too large, not a number, twice; and an endless status line.
        MockStep::Truncate(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n".to_vec()),
        raw("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"),
        raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        raw("not even HTTP\r\n\r\n"),
        // No response.
        MockStep::NoResponse,
    ];
    for step in steps {
        for stored in [false, true] {
            assert_eq!(recovers(step.clone(), 2, stored).await, 3, "{step:?}");
        }
    }
}

#[tokio::test]
async fn a_permanent_error_is_fatal_at_once_and_names_the_remedy() {
    for (step, words) in [
        (
            response("301 Moved Permanently", &[("Location", "http://elsewhere/")], ""),
            "use the final address",
        ),
        (
            response("307 Temporary Redirect", &[("Location", "http://elsewhere/")], ""),
            "use the final address",
        ),
        (response("401 Unauthorized", &[("WWW-Authenticate", "Basic")], ""), ".password()"),
        (
            response(
                "403 Forbidden",
                &[("X-ClickHouse-Exception-Code", "516")],
                "Code: 516. DB::Exception: no",
            ),
            "516",
        ),
        (response("403 Forbidden", &[], ""), ".password()"),
    ] {
        let table = Table::new(move |_, _| Act::Reject(step.clone())).await;
        let mut writer = writer(&table.url);
        kmr_core::Reducer::start(&mut writer).await.unwrap();
        let batch = batch_of(&mut writer, 5).await;
        let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
        assert!(!retryable && error.to_string().contains(words), "{error}");
        assert_eq!((table.inserts(), table.sorted_ids().len()), (1, 0));
    }
}

const NULL_TABLE: &str = "{\"database\":\"db\",\"name\":\"lines\",\"engine\":\"Null\",\"engine_full\":\"Null\",\"uuid\":\"\",\
    \"create_table_query\":\"\",\"dependencies_database\":[],\"dependencies_table\":[]}\n";

#[tokio::test]
async fn an_insert_whose_rows_only_views_keep_does_not_ignore_their_errors() {
    let pinned =
        ["&materialized_views_ignore_errors=0&", "&ignore_materialized_views_with_dropped_target_table=0 "];
    for (system_tables, is_pinned) in [(NULL_TABLE, true), ("", false)] {
        let table = Table::new(|_, _| Act::Store).await;
        table.contents.lock().unwrap().system_tables = system_tables;
        let mut writer = writer(&table.url).allow_volatile_table(true);
        kmr_core::Reducer::start(&mut writer).await.unwrap();
        batch_of(&mut writer, 5).await.deliver(Attempt::new(1)).await.unwrap();
        let head = table.contents.lock().unwrap().heads[0].clone();
        assert!(pinned.iter().all(|setting| head.contains(setting) == is_pinned), "{head}");
    }
    let table = Table::new(|_, _| Act::Store).await;
    table.contents.lock().unwrap().system_tables = NULL_TABLE;
    let mut writer = writer(&table.url).allow_volatile_table(true);
    writer = writer.setting("materialized_views_ignore_errors", "1");
    let text = error_chain(&*kmr_core::Reducer::start(&mut writer).await.unwrap_err());
    assert!(text.contains("remove .setting(\"materialized_views_ignore_errors\""), "{text}");
}

#[tokio::test]
async fn a_response_in_single_bytes_has_the_same_time_limit() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut first, _) = listener.accept().await.unwrap();
        super::mock::read_request(&mut first).await;
        let MockStep::Respond(description) = description() else { unreachable!() };
        first.write_all(&description).await.unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        super::mock::answer_nothing(&mut second).await;
        let (mut third, _) = listener.accept().await.unwrap();
        super::mock::answer_settings(&mut third).await;
        let (mut slow, _) = listener.accept().await.unwrap();
        super::mock::read_request(&mut slow).await;
        let mut head = b"HTTP/1.1 200 OK\r\nX-Slow: ".to_vec();
        loop {
            // The client closes the connection in the end.
            if slow.write_all(&head).await.is_err() {
                return;
            }
            head = b"x".to_vec();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut writer = writer(&url).response_timeout(Duration::from_millis(300));
    kmr_core::Reducer::start(&mut writer).await.unwrap();
    let batch = batch_of(&mut writer, 5).await;
    let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
    assert!(retryable && matches!(error, ClickHouseError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn a_truncated_body_is_sent_again_completely() {
    let mock =
        super::mock::Mock::new(vec![description(), MockStep::CloseEarly, super::mock::written(50)]).await;
    let mut writer = writer(&mock.url).compression(Compression::None);
    kmr_core::Reducer::start(&mut writer).await.unwrap();
    let batch = batch_of(&mut writer, 50).await;
    assert!(batch.deliver(Attempt::new(1)).await.unwrap_err().is_retryable());
    assert_eq!(batch.deliver(Attempt::new(2)).await.unwrap().output.rows, 50);
    assert_eq!(
        mock.received()[1].body.len(),
        23 + 50 * 9 + (0..50).map(|n| format!("row {n}").len()).sum::<usize>()
    );
}

#[tokio::test(start_paused = true)]
async fn too_many_parts_for_30_s_slows_down_every_insert_of_the_writer() {
    let started = Instant::now();
    let table = Table::new(move |_, _| match started.elapsed().as_secs() {
        0..30 => Act::Reject(exception(
            252,
            "Too many parts (3000). Merges are processing significantly slower than inserts",
        )),
        _ => Act::Store,
    })
    .await;
    let mut writer = writer(&table.url);
    kmr_core::Reducer::start(&mut writer).await.unwrap();
    let (one, two) = (batch_of(&mut writer, 5).await, batch_of(&mut writer, 5).await);
    tokio::join!(deliver(&one), deliver(&two));
    assert!(started.elapsed() >= Duration::from_secs(30));
    assert_eq!(table.sorted_ids().len(), 10);
    // Both batches share the waits of 1, 2, 4, 8, 10 s and so on; they do not insert every 100 ms.
    assert!(table.inserts() <= 16, "{} inserts", table.inserts());
}

#[tokio::test]
async fn an_unreachable_host_is_left_within_the_attempt_and_a_working_one_keeps_the_inserts() {
    let unavailable = super::mock::Mock::new(Vec::new()).await;
    let (here, spare) = (Table::new(|_, _| Act::Store).await, Table::new(|_, _| Act::Store).await);
    let mut writer = writer(&unavailable.url).fallback_host(&here.url).fallback_host(&spare.url);
    kmr_core::Reducer::start(&mut writer).await.unwrap();
    for _ in 0..3 {
        assert_eq!(deliver(&batch_of(&mut writer, 5).await).await.output.attempts, 1);
    }
    assert_eq!((here.inserts(), spare.inserts()), (3, 0));
}

#[tokio::test]
async fn a_read_only_replica_is_left_within_the_attempt() {
    let read_only = Table::new(|_, _| Act::Reject(exception(242, "Table is in readonly mode"))).await;
    let other = Table::new(|_, _| Act::Store).await;
    let mut two = writer(&read_only.url).fallback_host(&other.url);
    kmr_core::Reducer::start(&mut two).await.unwrap();
    for _ in 0..2 {
        assert_eq!(deliver(&batch_of(&mut two, 5).await).await.output.attempts, 1);
    }
    assert_eq!((read_only.inserts(), other.inserts()), (1, 2));
}

#[tokio::test]
async fn rows_that_a_host_may_have_stored_are_sent_there_once_more_before_another_host() {
    // Stored, and the response lost: the same host knows the token, the other does not.
    let first = Table::new(|number, _| match number {
        0 => Act::StoreBut(MockStep::Truncate(Vec::new())),
        _ => Act::Store,
    })
    .await;
    let other = Table::new(|_, _| Act::Store).await;
    let mut two = writer(&first.url).fallback_host(&other.url);
    kmr_core::Reducer::start(&mut two).await.unwrap();
    assert_eq!(deliver(&batch_of(&mut two, 5).await).await.output.attempts, 2);
    assert_eq!((first.sorted_ids().len(), first.inserts(), other.inserts()), (5, 2, 0));

    // A host that only breaks connections loses the batch to the other one.
    let broken = Table::new(|_, _| Act::Reject(MockStep::Truncate(Vec::new()))).await;
    let mut two = writer(&broken.url).fallback_host(&other.url);
    kmr_core::Reducer::start(&mut two).await.unwrap();
    assert_eq!(deliver(&batch_of(&mut two, 5).await).await.output.attempts, 3);
    assert_eq!((broken.inserts(), other.inserts()), (2, 1));
}
