//! A batch against a server that misbehaves for a while: whatever it does, every row is in afterwards, and once where it knows
//! tokens.

use std::time::Duration;

use kmr_core::Attempt;
use tokio::time::Instant;

use super::mock::{Step, answer, description};
use super::searching::{batch_of, deliver};
use super::table::{Act, Table, exception};
use super::{taken_apart, writer};
use crate::clickhouse::{ClickHouseError, Compression};

fn raw(text: &str) -> Step {
    Step::Answer(text.as_bytes().to_vec())
}

/// Delivers two batches to a server that shows `step` to the first inserts, stored or not; returns the attempts of the first.
async fn recovers(step: Step, times: usize, stored: bool) -> u32 {
    let shown = format!("{step:?}");
    let table = Table::new(move |number, _| match number {
        n if n >= times => Act::Store,
        _ if stored => Act::StoreAnd(step.clone()),
        _ => Act::Refuse(step.clone()),
    })
    .await;
    let limit = Duration::from_millis(200);
    let mut writer = writer(&table.url).answer_timeout(limit).send_timeout(limit);
    kmr_core::Reducer::start(&mut writer).await.unwrap();
    let attempts = deliver(&batch_of(&mut writer, 50).await).await.output.attempts;
    assert_eq!(deliver(&batch_of(&mut writer, 1).await).await.output.attempts, 1, "{shown}");
    let mut expected: Vec<u64> = (0..50).collect();
    expected.insert(0, 0); // of the second batch
    assert_eq!(table.sorted_ids(), expected, "{shown}, stored: {stored}");
    attempts
}

#[tokio::test]
async fn every_row_is_in_once_whatever_the_server_did_before() {
    let steps = [
        answer("500 Internal Server Error", &[], ""),
        answer("500 Internal Server Error", &[], "something broke"),
        answer("502 Bad Gateway", &[], "<html>upstream</html>"),
        answer("503 Service Unavailable", &[("Retry-After", "1")], ""),
        answer("200 OK", &[("X-ClickHouse-Exception-Code", "241")], ""),
        answer("200 OK", &[], "\nCode: 241. DB::Exception: Memory limit exceeded"),
        exception(241, "Memory limit exceeded"),
        exception(999, "Keeper"),
        // Cut: before anything, in the head, in a body of known length, in a chunk.
        Step::CutAnswer(Vec::new()),
        Step::CutAnswer(b"HTTP/1.1 200 O".to_vec()),
        Step::CutAnswer(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_vec()),
        Step::CutAnswer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab".to_vec()),
        // Content-Length too large, not a number, two of them, and none with a status that never ends.
        Step::CutAnswer(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n".to_vec()),
        raw("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"),
        raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        raw("not even HTTP\r\n\r\n"),
        // No answer at all.
        Step::Silence,
    ];
    for step in steps {
        for stored in [false, true] {
            assert_eq!(recovers(step.clone(), 2, stored).await, 3, "{step:?}");
        }
    }
}

#[tokio::test]
async fn what_will_not_pass_stops_at_the_first_answer_and_names_the_remedy() {
    for (step, words) in [
        (answer("301 Moved Permanently", &[("Location", "http://elsewhere/")], ""), "give the final address"),
        (
            answer("307 Temporary Redirect", &[("Location", "http://elsewhere/")], ""),
            "give the final address",
        ),
        (answer("401 Unauthorized", &[("WWW-Authenticate", "Basic")], ""), ".password()"),
        (
            answer(
                "403 Forbidden",
                &[("X-ClickHouse-Exception-Code", "516")],
                "Code: 516. DB::Exception: no",
            ),
            "516",
        ),
        (answer("403 Forbidden", &[], ""), ".password()"),
    ] {
        let table = Table::new(move |_, _| Act::Refuse(step.clone())).await;
        let mut writer = writer(&table.url);
        kmr_core::Reducer::start(&mut writer).await.unwrap();
        let batch = batch_of(&mut writer, 5).await;
        let (retryable, error) = taken_apart(batch.deliver(Attempt::new(1)).await.unwrap_err());
        assert!(!retryable && error.to_string().contains(words), "{error}");
        assert_eq!((table.inserts(), table.sorted_ids().len()), (1, 0));
    }
}

#[tokio::test]
async fn an_answer_that_comes_byte_by_byte_is_waited_for_no_longer_than_an_answer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut first, _) = listener.accept().await.unwrap();
        super::mock::read_request(&mut first).await;
        let Step::Answer(description) = description() else { unreachable!() };
        first.write_all(&description).await.unwrap();
        let (mut slow, _) = listener.accept().await.unwrap();
        super::mock::read_request(&mut slow).await;
        let mut head = b"HTTP/1.1 200 OK\r\nX-Slow: ".to_vec();
        loop {
            // The client leaves in the end.
            if slow.write_all(&head).await.is_err() {
                return;
            }
            head = b"x".to_vec();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut writer = writer(&url).answer_timeout(Duration::from_millis(300));
    kmr_core::Reducer::start(&mut writer).await.unwrap();
    let batch = batch_of(&mut writer, 5).await;
    let (retryable, error) = taken_apart(batch.deliver(Attempt::new(1)).await.unwrap_err());
    assert!(retryable && matches!(error, ClickHouseError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn a_body_that_is_cut_on_the_way_is_sent_again_whole() {
    let mock = super::mock::Mock::new(vec![description(), Step::CutRequest, super::mock::written(50)]).await;
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
        0..30 => Act::Refuse(exception(
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
    // 1, 2, 4, 8, 10 s and so on, for both together: not one insert each 100 ms.
    assert!(table.inserts() <= 16, "{} inserts", table.inserts());
}

#[tokio::test]
async fn a_host_that_is_gone_is_left_within_the_attempt_and_one_that_answers_keeps_the_inserts() {
    let away = super::mock::Mock::new(Vec::new()).await;
    let (here, spare) = (Table::new(|_, _| Act::Store).await, Table::new(|_, _| Act::Store).await);
    let mut writer = writer(&away.url).or_host(&here.url).or_host(&spare.url);
    kmr_core::Reducer::start(&mut writer).await.unwrap();
    for _ in 0..3 {
        assert_eq!(deliver(&batch_of(&mut writer, 5).await).await.output.attempts, 1);
    }
    assert_eq!((here.inserts(), spare.inserts()), (3, 0));
}

#[tokio::test]
async fn a_replica_that_takes_no_inserts_is_left_within_the_attempt() {
    let read_only = Table::new(|_, _| Act::Refuse(exception(242, "Table is in readonly mode"))).await;
    let other = Table::new(|_, _| Act::Store).await;
    let mut two = writer(&read_only.url).or_host(&other.url);
    kmr_core::Reducer::start(&mut two).await.unwrap();
    for _ in 0..2 {
        assert_eq!(deliver(&batch_of(&mut two, 5).await).await.output.attempts, 1);
    }
    assert_eq!((read_only.inserts(), other.inserts()), (1, 2));
}

#[tokio::test]
async fn rows_that_may_be_at_a_host_go_there_once_more_before_they_go_elsewhere() {
    // Stored, and the answer lost: the same host knows the token, the other does not.
    let first = Table::new(|number, _| match number {
        0 => Act::StoreAnd(Step::CutAnswer(Vec::new())),
        _ => Act::Store,
    })
    .await;
    let other = Table::new(|_, _| Act::Store).await;
    let mut two = writer(&first.url).or_host(&other.url);
    kmr_core::Reducer::start(&mut two).await.unwrap();
    assert_eq!(deliver(&batch_of(&mut two, 5).await).await.output.attempts, 2);
    assert_eq!((first.sorted_ids().len(), first.inserts(), other.inserts()), (5, 2, 0));

    // A host that only breaks connections loses the batch to the other one.
    let broken = Table::new(|_, _| Act::Refuse(Step::CutAnswer(Vec::new()))).await;
    let mut two = writer(&broken.url).or_host(&other.url);
    kmr_core::Reducer::start(&mut two).await.unwrap();
    assert_eq!(deliver(&batch_of(&mut two, 5).await).await.output.attempts, 3);
    assert_eq!((broken.inserts(), other.inserts()), (2, 1));
}
