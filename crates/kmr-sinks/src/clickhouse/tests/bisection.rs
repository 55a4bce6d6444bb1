//! Batches with rows that the server rejects: the good rows are stored once and the bad ones
//! rejected, also after lost responses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kmr_core::{Attempt, Chunk, CodedError, Delivered, Reducer, Rows, error_chain};

use super::mock::{MockStep, description, response};
use super::table::{Act, Table, exception, violated};
use super::{Batch, Line, sink_error, writer};
use crate::clickhouse::{ClickHouseWriter, Compression, InsertReceipt};

/// A batch of rows with the ids from 0, in chunks of several sizes.
pub(super) async fn batch_of(writer: &mut ClickHouseWriter<Line>, rows: u64) -> Batch {
    let mut ids = 0..rows;
    for size in [1, 7, 3000].into_iter().cycle() {
        let mut chunk = writer.new_rows();
        for id in ids.by_ref().take(size) {
            chunk.push(Line { id, text: format!("row {id}") }).unwrap();
        }
        if chunk.is_empty() {
            break;
        }
        writer.accept(Chunk::new(chunk, Vec::new())).unwrap();
    }
    writer.freeze().unwrap()
}

/// Retries until the batch is delivered, as the framework does.
pub(super) async fn deliver(batch: &Batch) -> Delivered<InsertReceipt> {
    for number in 1..1000 {
        match batch.deliver(Attempt::new(number)).await {
            Ok(delivered) => return delivered,
            Err(error) => assert!(error.is_retryable(), "{}", error_chain(&*error.into_source())),
        }
    }
    panic!("the batch was never delivered")
}

fn rejected(delivered: &Delivered<InsertReceipt>) -> Vec<usize> {
    let mut rows: Vec<_> = delivered.rejected.iter().map(|row| row.index).collect();
    rows.sort_unstable();
    rows
}

async fn started(url: &str) -> ClickHouseWriter<Line> {
    let mut writer = writer(url).max_rows(1 << 20);
    writer.start().await.unwrap();
    writer
}

#[tokio::test]
async fn good_rows_are_stored_once_and_bad_ones_rejected_with_code_and_column() {
    for compression in [Compression::None, Compression::Lz4] {
        for named in [true, false] {
            let bad = [3, 4_000, 4_001, 9_999];
            let table = Table::new(move |_, ids| match ids.iter().position(|id| bad.contains(id)) {
                None => Act::Store,
                Some(at) if named => Act::Reject(violated(at)),
                Some(_) => Act::Reject(exception(53, "Cannot convert")),
            })
            .await;
            let mut writer = writer(&table.url).max_rows(1 << 20).compression(compression);
            writer.start().await.unwrap();
            let delivered = deliver(&batch_of(&mut writer, 10_000).await).await;
            assert_eq!(rejected(&delivered), bad.map(|id| id as usize));
            let good: Vec<u64> = (0..10_000).filter(|id| !bad.contains(id)).collect();
            assert_eq!(table.sorted_ids(), good);
            let receipt = delivered.output;
            assert_eq!((receipt.rows, receipt.rejected, receipt.attempts), (9_996, 4, 1));
            assert_eq!(receipt.written_rows, Some(9_996));
            assert_eq!(receipt.inserts as usize, table.inserts());
            // 2·k and the batch itself, or about 2·k·log2(n/k).
            assert!(receipt.inserts <= if named { 9 } else { 91 }, "{}", receipt.inserts);
            for row in &delivered.rejected {
                let error = row.error.downcast_ref::<CodedError>().unwrap();
                let text = error_chain(error);
                assert_eq!(error.code(), if named { "469" } else { "53" });
                assert_eq!(text.contains("column `id`"), named, "{text}");
                assert!(text.contains("`db`.`lines`"), "{text}");
            }
        }
    }
}

#[tokio::test]
async fn one_bad_row_of_100_000_costs_two_inserts_if_it_is_named_and_34_if_not() {
    for (named, allowed) in [(true, 3), (false, 34)] {
        let table = Table::new(move |_, ids| match ids.iter().position(|id| *id == 65_535) {
            None => Act::Store,
            Some(at) if named => Act::Reject(violated(at)),
            Some(_) => Act::Reject(exception(53, "Cannot convert")),
        })
        .await;
        let delivered = deliver(&batch_of(&mut started(&table.url).await, 100_000).await).await;
        assert_eq!(rejected(&delivered), [65_535]);
        assert_eq!(table.sorted_ids().len(), 99_999);
        assert!(delivered.output.inserts <= allowed, "{} inserts", delivered.output.inserts);
    }
}

#[tokio::test]
async fn a_bisection_continues_after_lost_responses_and_stores_nothing_twice() {
    // The response of every third insert is lost, every fifth insert fails, and some rows are bad.
    let bad = |id: &u64| id % 97 == 5;
    let table = Table::new(move |number, ids| {
        let good = !ids.iter().any(bad);
        match number {
            n if n % 5 == 1 => Act::Reject(MockStep::Truncate(b"HTTP/1.1 20".to_vec())),
            n if n % 3 == 1 && good => Act::StoreBut(MockStep::Truncate(Vec::new())),
            n if n % 7 == 1 => Act::Reject(exception(241, "Memory limit exceeded")),
            _ if good => Act::Store,
            _ => Act::Reject(exception(53, "Cannot convert")),
        }
    })
    .await;
    let delivered = deliver(&batch_of(&mut started(&table.url).await, 1_000).await).await;
    assert_eq!(rejected(&delivered).len(), (0..1_000_u64).filter(bad).count());
    assert_eq!(table.sorted_ids(), (0..1_000).filter(|id| !bad(id)).collect::<Vec<_>>());
    assert!(delivered.output.attempts > 5, "{}", delivered.output.attempts);
}

#[tokio::test]
async fn an_attempt_that_is_dropped_during_the_bisection_loses_none_of_it() {
    let bad = |ids: &[u64]| ids.contains(&77);
    let table = Table::new(move |number, ids| match number {
        n if n % 4 == 3 && bad(ids) => Act::Reject(MockStep::NoResponse),
        n if n % 4 == 3 => Act::StoreBut(MockStep::NoResponse),
        _ if bad(ids) => Act::Reject(exception(53, "Cannot convert")),
        _ => Act::Store,
    })
    .await;
    let batch = batch_of(&mut started(&table.url).await, 100).await;
    let mut dropped = 0;
    let delivered = loop {
        match tokio::time::timeout(Duration::from_millis(100), batch.deliver(Attempt::new(1))).await {
            Ok(result) => break result.unwrap(),
            Err(_) => dropped += 1,
        }
        assert!(dropped < 100, "it makes no progress");
    };
    assert!(dropped > 1, "nothing was dropped");
    assert_eq!(rejected(&delivered), [77]);
    assert_eq!(table.sorted_ids(), (0..100).filter(|id| *id != 77).collect::<Vec<_>>());
}

#[tokio::test]
async fn row_numbers_that_are_wrong_cost_requests_and_no_row() {
    let table = Table::new(|_, ids| match ids.iter().position(|id| *id == 40) {
        None => Act::Store,
        Some(at) => Act::Reject(violated(if at == 0 { 1 } else { at - 1 })),
    })
    .await;
    let delivered = deliver(&batch_of(&mut started(&table.url).await, 100).await).await;
    assert_eq!(rejected(&delivered), [40]);
    assert_eq!(table.sorted_ids(), (0..100).filter(|id| *id != 40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_wrong_mapping_is_fatal_instead_of_emptying_the_topic() {
    let table = Table::new(|_, _| Act::Reject(violated(0))).await;
    for (rows, words) in [(10_000, "1001 of 10000 rows"), (200, "100 of the last 200 rows")] {
        let batch = batch_of(&mut started(&table.url).await, rows).await;
        let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
        assert!(!retryable);
        let text = error_chain(&error);
        assert!(text.contains(words) && text.contains("469"), "{text}");
        assert_eq!(error.code(), Some(469));
    }
    // The ratio covers several batches, however small.
    let mut writer = started(&table.url).await;
    let mut ended = 0;
    while batch_of(&mut writer, 1).await.deliver(Attempt::new(1)).await.is_ok() {
        ended += 1;
    }
    assert_eq!(ended, 99);
    assert_eq!(table.sorted_ids(), Vec::<u64>::new());
}

#[tokio::test]
async fn a_failed_view_causes_no_bisection() {
    let text = "Constraint `c` for table db.target (uuid) is violated at row 2. Expression: (y < 50). Column values: y = 50: while \
                pushing to view db.v. (VIOLATED_CONSTRAINT)";
    let table = Table::new(move |_, _| Act::StoreBut(exception(469, text))).await;
    let batch = batch_of(&mut started(&table.url).await, 10).await;
    let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
    assert!(!retryable);
    assert!(error.to_string().contains("correct the view"), "{error}");
    assert_eq!(table.inserts(), 1);
}

#[tokio::test]
async fn rows_of_too_many_table_partitions_are_inserted_in_parts() {
    let table = Table::new(|_, ids| match ids.len() {
        0..=30 => Act::Store,
        _ => Act::Reject(exception(252, "Too many partitions for single INSERT block (more than 30).")),
    })
    .await;
    let delivered = deliver(&batch_of(&mut started(&table.url).await, 100).await).await;
    assert_eq!(table.sorted_ids(), (0..100).collect::<Vec<_>>());
    assert_eq!((delivered.output.rejected, delivered.output.inserts), (0, 7));
    // One row has one partition: a limit below that is a mistake.
    let table =
        Table::new(|_, _| Act::Reject(exception(252, "Too many partitions for single INSERT block"))).await;
    let batch = batch_of(&mut started(&table.url).await, 4).await;
    let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
    assert!(!retryable && error.to_string().contains("PARTITION BY"), "{error}");
}

#[tokio::test]
async fn a_temporary_rejection_of_one_batch_alone_is_that_batchs_own() {
    let table = Table::new(|_, ids| match ids.contains(&900) {
        true => Act::Reject(exception(241, "Query memory limit exceeded")),
        false => Act::Store,
    })
    .await;
    let mut writer = started(&table.url).await;
    let batch = batch_of(&mut writer, 1_000).await;
    // While no other insert is accepted, the server may be at fault.
    for number in 1..=20 {
        let error = batch.deliver(Attempt::new(number)).await.unwrap_err();
        assert!(error.is_retryable());
    }
    assert_eq!(table.inserts(), 20);
    for _ in 0..2 {
        deliver(&batch_of(&mut writer, 3).await).await;
    }
    // Accepted halves count as other inserts for the rest.
    let delivered = deliver(&batch).await;
    assert_eq!(rejected(&delivered), [900]);
    assert_eq!(delivered.output.rows, 999);
    assert_eq!(table.sorted_ids().len(), 999 + 6);
}

#[tokio::test]
async fn a_short_overload_of_the_server_rejects_no_row() {
    for rows in [1_000, 2] {
        let overload = Arc::new(AtomicBool::new(true));
        let is_overloaded = Arc::clone(&overload);
        let table = Table::new(move |_, _| match is_overloaded.load(Ordering::Relaxed) {
            true => Act::Reject(exception(241, "(total) memory limit exceeded")),
            false => Act::Store,
        })
        .await;
        let mut writer = started(&table.url).await;
        let batch = batch_of(&mut writer, rows).await;
        let fail = async || assert!(batch.deliver(Attempt::new(1)).await.unwrap_err().is_retryable());
        for _ in 0..20 {
            fail().await;
        }
        // Two other inserts are accepted, and then every insert is rejected for a while.
        overload.store(false, Ordering::Relaxed);
        for _ in 0..2 {
            deliver(&batch_of(&mut writer, 3).await).await;
        }
        overload.store(true, Ordering::Relaxed);
        for _ in 0..30 {
            fail().await;
        }
        overload.store(false, Ordering::Relaxed);
        let delivered = deliver(&batch).await;
        assert_eq!((rejected(&delivered), delivered.output.rows), (Vec::new(), rows));
        let all = (0..3).chain(0..3).chain(0..rows).collect::<std::collections::BinaryHeap<_>>();
        assert_eq!(table.sorted_ids(), all.into_sorted_vec());
    }
}

#[tokio::test]
async fn temporary_rejections_of_several_rows_are_found_while_other_batches_are_stored() {
    let bad = [11, 12, 63];
    let table = Table::new(move |_, ids| match ids.iter().any(|id| bad.contains(id)) {
        true => Act::Reject(exception(241, "Query memory limit exceeded")),
        false => Act::Store,
    })
    .await;
    let mut writer = started(&table.url).await;
    let batch = batch_of(&mut writer, 64).await;
    for number in 1..100 {
        if let Ok(delivered) = batch.deliver(Attempt::new(number)).await {
            assert_eq!(rejected(&delivered), bad.map(|id| id as usize));
            assert_eq!(table.sorted_ids().len(), 61 + number as usize - 1);
            return;
        }
        deliver(&batch_of(&mut writer, 1).await).await;
    }
    panic!("the batch was never delivered");
}

#[tokio::test]
async fn a_rejected_asynchronous_insert_is_repeated_alone_before_a_row_is_rejected() {
    // The bad row of the first insert belongs to another batch.
    for (rows, bad) in [(1, 99), (20, 99), (20, 7)] {
        let table = Table::new(move |number, ids| match ids.contains(&bad) || number == 0 {
            true => Act::Reject(exception(53, "Cannot convert")),
            false => Act::Store,
        })
        .await;
        let mut writer = writer(&table.url).async_insert(true);
        writer.start().await.unwrap();
        let delivered = deliver(&batch_of(&mut writer, rows).await).await;
        let expected: Vec<_> = (0..rows).filter(|id| *id == bad).map(|id| id as usize).collect();
        assert_eq!(rejected(&delivered), expected);
        assert_eq!(table.sorted_ids(), (0..rows).filter(|id| *id != bad).collect::<Vec<_>>());
        assert_eq!(deliver(&batch_of(&mut writer, 1).await).await.output.inserts, 1);
        let heads = table.contents.lock().unwrap().heads.clone();
        let is_async: Vec<_> = heads.iter().map(|head| head.contains("&async_insert=1&")).collect();
        let [true, parts @ .., true] = &is_async[..] else { panic!("{heads:?}") };
        assert!(!parts.is_empty() && parts.iter().all(|is_async| !is_async), "{heads:?}");
    }
}

pub(super) fn described(id_type: &str) -> MockStep {
    let body = format!(
        "{{\"name\":\"new\",\"type\":\"String\",\"default_type\":\"DEFAULT\"}}\n\
         {{\"name\":\"id\",\"type\":\"{id_type}\",\"default_type\":\"\"}}\n\
         {{\"name\":\"text\",\"type\":\"String\",\"default_type\":\"\"}}\n"
    );
    response("200 OK", &[], &body)
}

pub(super) const HEADER: &str = "Type of 'id' must be UInt128, not UInt64: (while reading header): While executing BinaryRowInputFormat. \
    (INCORRECT_DATA)";

#[tokio::test]
async fn a_wider_column_is_converted_and_the_table_described_before_each_such_insert() {
    let table = Table::described_as(vec![description(), described("UInt128")], |number, _| match number {
        0 => Act::Reject(exception(117, HEADER)),
        _ => Act::Store,
    })
    .await;
    let mut writer = started(&table.url).await;
    for _ in 0..2 {
        assert_eq!(deliver(&batch_of(&mut writer, 5).await).await.output.attempts, 1);
    }
    let contents = table.contents.lock().unwrap();
    // At the start, after the error, and before each of two inserts.
    assert_eq!((contents.described, contents.inserts.len()), (4, 3));
    assert!(!contents.inserts[0].1.contains("input"));
    for (_, statement) in &contents.inserts[1..] {
        assert!(statement.contains("input%28%27%60id%60%20UInt64"), "{statement}");
    }
}

#[tokio::test]
async fn an_insert_without_conversion_describes_no_table() {
    let table = Table::new(|_, _| Act::Store).await;
    let mut writer = started(&table.url).await;
    for _ in 0..3 {
        deliver(&batch_of(&mut writer, 5).await).await;
    }
    assert_eq!((table.inserts(), table.contents.lock().unwrap().described), (3, 1));
}

#[tokio::test]
async fn a_column_that_becomes_narrow_while_rows_are_converted_stops_before_the_insert() {
    let wide = || described("UInt128");
    let changes = vec![description(), wide(), wide(), described("UInt8")];
    let table = Table::described_as(changes, |number, _| match number {
        0 => Act::Reject(exception(117, HEADER)),
        _ => Act::Store,
    })
    .await;
    let mut writer = started(&table.url).await;
    deliver(&batch_of(&mut writer, 5).await).await;
    let batch = batch_of(&mut writer, 5).await;
    let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
    let text = error.to_string();
    assert!(!retryable && text.contains("`id` was UInt64 at the start and is UInt8 now"), "{text}");
    assert_eq!(table.inserts(), 2, "the rows of the second batch are not sent");
}

#[tokio::test]
async fn a_description_before_an_insert_that_fails_is_tried_again_and_doubles_nothing() {
    let wide = || described("UInt128");
    let changes = vec![description(), wide(), MockStep::Truncate(Vec::new()), wide()];
    let table = Table::described_as(changes, |number, _| match number {
        0 => Act::Reject(exception(117, HEADER)),
        _ => Act::Store,
    })
    .await;
    let batch = batch_of(&mut started(&table.url).await, 5).await;
    assert!(sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err()).0);
    assert_eq!(table.inserts(), 1);
    batch.deliver(Attempt::new(2)).await.unwrap();
    assert_eq!((table.sorted_ids(), table.inserts()), ((0..5).collect(), 2));
}

#[tokio::test]
async fn rows_are_stored_if_a_column_was_changed_back_before_the_description() {
    let table = Table::described_as(vec![description(), description()], |number, _| match number {
        0 => Act::Reject(exception(117, HEADER)),
        _ => Act::Store,
    })
    .await;
    let batch = batch_of(&mut started(&table.url).await, 5).await;
    assert_eq!(deliver(&batch).await.output.attempts, 1);
    assert_eq!((table.inserts(), table.contents.lock().unwrap().described), (2, 2));
}

#[tokio::test]
async fn rows_are_not_sent_again_if_a_view_lacks_their_columns() {
    let of_view = "Missing columns: 'gone': while pushing to view db.sums (db.sums). (UNKNOWN_IDENTIFIER)";
    let table = Table::new(|_, _| Act::Reject(exception(47, of_view))).await;
    let batch = batch_of(&mut started(&table.url).await, 5).await;
    let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
    assert!(!retryable && error.to_string().contains("db.sums"), "{error}");
    assert_eq!(table.inserts(), 1);
}

#[tokio::test]
async fn a_table_that_no_longer_fits_is_fatal_and_the_column_is_named() {
    for (now, words, inserts) in [
        (described("UInt8"), "column `id` was UInt64 at the start and is UInt8 now", 1),
        // No change explains the error: the server's own message, when it repeats.
        (description(), "while reading header", 2),
        (
            response("200 OK", &[], "{\"name\":\"id\",\"type\":\"UInt64\",\"default_type\":\"\"}"),
            "column `text` is gone",
            1,
        ),
    ] {
        let table =
            Table::described_as(vec![description(), now], |_, _| Act::Reject(exception(117, HEADER))).await;
        let batch = batch_of(&mut started(&table.url).await, 5).await;
        let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
        assert!(!retryable && error.to_string().contains(words), "{error}");
        assert_eq!((table.inserts(), table.contents.lock().unwrap().described), (inserts, 2));
    }
}

#[tokio::test]
async fn rows_are_inserted_by_table_partition_and_rejected_ones_keep_their_indexes() {
    let table = Table::new(|_, ids| match ids {
        _ if ids.len() > 4 => {
            Act::Reject(exception(252, "Too many partitions for single INSERT block (more than 2)."))
        }
        _ if ids.contains(&7) => Act::Reject(exception(153, "Division by zero")),
        _ => Act::Store,
    })
    .await;
    // Odd rows come before even ones.
    table.contents.lock().unwrap().hashes = (0..16).map(|row| (row + 1) % 2).collect();
    let delivered = deliver(&batch_of(&mut started(&table.url).await, 16).await).await;
    let rejected: Vec<usize> = delivered.rejected.iter().map(|row| row.index).collect();
    assert_eq!(rejected, [7]);
    let contents = table.contents.lock().unwrap();
    assert_eq!(contents.ids, [1, 3, 5, 9, 11, 13, 15, 0, 2, 4, 6, 8, 10, 12, 14]);
}
