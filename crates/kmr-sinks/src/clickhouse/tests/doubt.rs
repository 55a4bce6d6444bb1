//! Errors after which rows may be stored: no batch is split, and no retry doubles rows for long.

use std::collections::BTreeSet;

use kmr_core::{Attempt, error_chain};

use super::bisection::{batch_of, deliver};
use super::mock::MockStep;
use super::secrets::Log;
use super::table::{Act, Table, exception};
use super::{sink_error, writer};
use crate::clickhouse::batch::repetition::{DOUBLING_RETRIES, UNKNOWN_RETRIES};
use crate::clickhouse::{ClickHouseError, Compression};

/// A started writer to a table.
async fn started(table: &Table) -> crate::clickhouse::ClickHouseWriter<super::Line> {
    let mut writer = writer(&table.url).max_rows(1 << 20);
    kmr_core::Reducer::start(&mut writer).await.unwrap();
    writer
}

/// Fails a batch of 1,000 rows 20 times while others are stored. Returns the rows of its inserts.
async fn inserts_of_a_failing_batch(code: u32, text: &'static str) -> Vec<usize> {
    let table = Table::new(move |_, ids| match ids.contains(&900) {
        true => Act::StoreBut(exception(code, text)),
        false => Act::Store,
    })
    .await;
    let mut writer = started(&table).await;
    let batch = batch_of(&mut writer, 1_000).await;
    for number in 1..=20 {
        let error = batch.deliver(Attempt::new(number)).await.unwrap_err();
        assert!(error.is_retryable(), "code {code}");
        deliver(&batch_of(&mut writer, 3).await).await;
    }
    let inserts = table.contents.lock().unwrap().inserts.iter().map(|(rows, _)| *rows).collect::<Vec<_>>();
    let tokens = table.contents.lock().unwrap().tokens.len();
    assert_eq!(tokens, 21, "code {code}: the batch has one token");
    inserts.into_iter().filter(|rows| *rows != 3).collect()
}

#[tokio::test]
async fn a_batch_that_may_be_stored_is_never_split() {
    for code in [159, 209, 210, 319, 394, 999] {
        assert_eq!(inserts_of_a_failing_batch(code, "Something").await, [1_000; 20], "code {code}");
    }
    let lost = "Attempt to read after eof: while receiving packet from b:9000, local address: a:45096: Insertion status:\nWrote 1 \
                blocks and 20 rows on shard 0 replica 0, b:9000 (average 1 ms per block)\n. (ATTEMPT_TO_READ_AFTER_EOF)";
    for code in [32, 33] {
        assert_eq!(inserts_of_a_failing_batch(code, lost).await, [1_000; 20], "code {code}");
    }
}

#[tokio::test]
async fn a_batch_whose_first_table_partitions_may_be_stored_is_not_split_for_memory() {
    // A partition key, and a table that passes its rows on to one that may have a partition key.
    let layouts = [(vec![1], None), (Vec::new(), Some("MaterializedView")), (Vec::new(), Some("Merge"))];
    for (hashes, engine) in layouts {
        let table = Table::new(move |_, ids| match ids.contains(&900) {
            true => Act::Reject(exception(241, "Query memory limit exceeded")),
            false => Act::Store,
        })
        .await;
        {
            let mut contents = table.contents.lock().unwrap();
            (contents.hashes, contents.engine) = (hashes, engine);
        }
        let mut writer = started(&table).await;
        let batch = batch_of(&mut writer, 1_000).await;
        for number in 1..=20 {
            assert!(batch.deliver(Attempt::new(number)).await.unwrap_err().is_retryable());
            deliver(&batch_of(&mut writer, 3).await).await;
        }
        let contents = table.contents.lock().unwrap();
        assert_eq!(contents.inserts.iter().filter(|(rows, _)| *rows == 1_000).count(), 20, "{engine:?}");
    }
}

#[tokio::test]
async fn a_retry_after_a_dropped_attempt_is_reported_once() {
    let table = Table::new(|number, _| match number {
        0 | 1 => Act::StoreBut(MockStep::NoResponse),
        _ => Act::Store,
    })
    .await;
    let batch = batch_of(&mut started(&table).await, 10).await;
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    for inserts in [1, 2] {
        tokio::select! {
            _ = batch.deliver(Attempt::new(inserts)) => panic!("the server does not respond"),
            () = async { while table.inserts() < inserts as usize { tokio::task::yield_now().await } } => {}
        }
        let reports = log.0.lock().unwrap().matches("rows may be stored twice").count();
        assert_eq!(reports, inserts as usize - 1, "nothing is repeated yet by the first attempt");
    }
    deliver(&batch).await;
    drop(guard);
    let logged = log.0.lock().unwrap().clone();
    assert_eq!(logged.matches("rows may be stored twice").count(), 1, "{logged}");
    assert!(logged.contains("attempt timeout") && logged.contains("rows=10"), "{logged}");
}

/// Inserts a batch until the error is permanent. Returns the number of inserts, and the error.
async fn inserts_until_the_stop(code: u32, text: &'static str) -> (usize, ClickHouseError) {
    let table = Table::new(move |_, _| Act::StoreBut(exception(code, text))).await;
    let batch = batch_of(&mut started(&table).await, 10).await;
    for number in 1..100 {
        let (retryable, error) = sink_error(batch.deliver(Attempt::new(number)).await.unwrap_err());
        if !retryable {
            return (table.inserts(), error);
        }
    }
    panic!("code {code} is retried for ever")
}

#[tokio::test]
async fn a_temporary_error_of_a_view_is_retried_a_few_times_and_log_and_error_tell_why() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let (inserts, error) = inserts_until_the_stop(241, "Memory: while pushing to view db.v. (X)").await;
    assert_eq!(inserts, DOUBLING_RETRIES as usize + 1);
    let text = error_chain(&error);
    assert!(
        text.contains("failed 4 times") && text.contains("stores the rows in the table once more"),
        "{text}"
    );
    assert_eq!(error.code(), Some(241));
    // At the first failure, and once.
    let logged = log.0.lock().unwrap().clone();
    assert_eq!(logged.matches("rows may be stored twice").count(), 1, "{logged}");
    assert!(logged.contains("retries=3") && logged.contains("rows=10"), "{logged}");
}

/// A line of `system.tables` for a table with a deduplication window.
const WITH_WINDOW: &str = "{\"database\":\"db\",\"name\":\"lines\",\"engine\":\"MergeTree\",\"engine_full\":\"MergeTree ORDER BY id SETTINGS \
     non_replicated_deduplication_window = 100\",\"uuid\":\"\",\"create_table_query\":\"\",\"dependencies_database\":[],\
     \"dependencies_table\":[]}\n";

#[tokio::test]
async fn a_temporary_error_of_a_view_is_retried_longer_if_tokens_are_remembered() {
    let table =
        Table::new(|_, _| Act::StoreBut(exception(241, "Memory: while pushing to view db.v. (X)"))).await;
    table.contents.lock().unwrap().system_tables = WITH_WINDOW;
    let batch = batch_of(&mut started(&table).await, 10).await;
    for number in 1..=2 * DOUBLING_RETRIES {
        assert!(batch.deliver(Attempt::new(number)).await.unwrap_err().is_retryable(), "{number}");
    }
}

#[tokio::test]
async fn a_view_added_later_without_a_window_limits_the_retries() {
    let table =
        Table::new(|_, _| Act::StoreBut(exception(241, "Memory: while pushing to view db.v. (X)"))).await;
    table.contents.lock().unwrap().system_tables = WITH_WINDOW;
    let mut writer = started(&table).await;
    let batch = batch_of(&mut writer, 10).await;
    assert!(batch.deliver(Attempt::new(1)).await.unwrap_err().is_retryable());
    table.contents.lock().unwrap().system_tables = "";
    let batch = batch_of(&mut writer, 10).await;
    for number in 1..=DOUBLING_RETRIES {
        assert!(batch.deliver(Attempt::new(number)).await.unwrap_err().is_retryable(), "{number}");
    }
    assert!(!batch.deliver(Attempt::new(DOUBLING_RETRIES + 1)).await.unwrap_err().is_retryable());
}

/// The message of servers before 26.4.
const BOTH: &str = "Deduplication in dependent materialized view cannot work together with async inserts. Please disable either \
     `deduplicate_blocks_in_dependent_materialized_views` or `async_insert` setting. (SUPPORT_IS_DISABLED)";

#[tokio::test]
async fn an_asynchronous_insert_that_is_not_deduplicated_is_retried_a_few_times_and_logged() {
    let table = Table::new(|number, _| match number {
        0 => Act::Reject(exception(344, BOTH)),
        _ => Act::StoreBut(exception(241, "Memory: while pushing to view db.v. (X)")),
    })
    .await;
    table.contents.lock().unwrap().system_tables = WITH_WINDOW;
    let mut writer = writer(&table.url).max_rows(1 << 20).async_insert(true);
    kmr_core::Reducer::start(&mut writer).await.unwrap();
    let batch = batch_of(&mut writer, 10).await;
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    for number in 1..=DOUBLING_RETRIES {
        assert!(batch.deliver(Attempt::new(number)).await.unwrap_err().is_retryable(), "{number}");
    }
    let (retryable, error) = sink_error(batch.deliver(Attempt::new(4)).await.unwrap_err());
    drop(guard);
    let text = error_chain(&error);
    assert!(!retryable && text.contains("does not deduplicate asynchronous inserts"), "{text}");
    let logged = log.0.lock().unwrap().clone();
    assert_eq!(logged.matches("rows may be stored twice").count(), 1, "{logged}");
    assert!(table.contents.lock().unwrap().heads[1].contains("async_insert_deduplicate=0"));
}

#[tokio::test]
async fn windows_that_cannot_be_read_for_a_moment_do_not_limit_the_retries() {
    let table =
        Table::new(|_, _| Act::StoreBut(exception(241, "Memory: while pushing to view db.v. (X)"))).await;
    table.contents.lock().unwrap().system_tables = WITH_WINDOW;
    let batch = batch_of(&mut started(&table).await, 10).await;
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    assert!(batch.deliver(Attempt::new(1)).await.unwrap_err().is_retryable());
    table.contents.lock().unwrap().system_tables = "Code: 241. DB::Exception: Memory limit exceeded";
    for number in 2..=2 * DOUBLING_RETRIES {
        assert!(batch.deliver(Attempt::new(number)).await.unwrap_err().is_retryable(), "{number}");
    }
    drop(guard);
    let logged = log.0.lock().unwrap().clone();
    assert!(!logged.contains("rows may be stored twice"), "{logged}");
}

#[tokio::test]
async fn concurrent_asynchronous_inserts_all_do_without_the_deduplication_of_views() {
    // The first insert of each batch.
    let mut seen = BTreeSet::new();
    let table = Table::new(move |_, ids| match seen.insert(ids.len()) {
        true => Act::Reject(exception(344, BOTH)),
        false => Act::Store,
    })
    .await;
    let mut writer = writer(&table.url).compression(Compression::None).async_insert(true);
    kmr_core::Reducer::start(&mut writer).await.unwrap();
    let (one, two) = (batch_of(&mut writer, 5).await, batch_of(&mut writer, 6).await);
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    let (one, two) = tokio::join!(one.deliver(Attempt::new(1)), two.deliver(Attempt::new(1)));
    drop(guard);
    assert_eq!((one.unwrap().output.rows, two.unwrap().output.rows), (5, 6));
    let heads = table.contents.lock().unwrap().heads.clone();
    let without = heads.iter().filter(|head| head.contains("async_insert_deduplicate=0")).count();
    assert_eq!((heads.len(), without), (4, 2), "the first two are sent before either response");
    let logged = log.0.lock().unwrap().clone();
    assert_eq!(logged.matches("turned the deduplication of asynchronous inserts off").count(), 1, "{logged}");
}

#[tokio::test]
async fn a_server_that_always_rejects_an_asynchronous_insert_is_sent_it_twice() {
    let table = Table::new(|_, _| Act::Reject(exception(344, BOTH))).await;
    let mut writer = writer(&table.url).async_insert(true);
    kmr_core::Reducer::start(&mut writer).await.unwrap();
    let batch = batch_of(&mut writer, 5).await;
    assert!(!sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err()).0);
    assert_eq!(table.inserts(), 2);
}

#[tokio::test]
async fn an_unknown_code_is_retried_a_few_times_and_the_error_tells_why() {
    let (inserts, error) = inserts_until_the_stop(4711, "Something odd").await;
    assert_eq!(inserts, UNKNOWN_RETRIES as usize + 1);
    let text = error_chain(&error);
    assert!(text.contains("failed 5 times") && text.contains("does not know the error's code"), "{text}");
}

#[tokio::test]
async fn errors_of_views_shards_and_settings_stop_at_the_first_answer() {
    for (code, text, words) in [
        (
            691,
            "Unknown element 'bad' for enum: while pushing to view db.v. (X)",
            "each restart stores them again",
        ),
        (4711, "Something odd: while pushing to view db.v. (X)", "correct the view"),
        (
            395,
            "Received from b:9000. DB::Exception: bad: while executing 'FUNCTION throwIf(a :: 4) -> throwIf(a) UInt8 : 3'. (X)",
            "other shards may have stored their rows",
        ),
        (
            452,
            "Setting async_insert should not be changed. (SETTING_CONSTRAINT_VIOLATION)",
            "profile does not allow",
        ),
        (48, "Method write is not supported by storage View. (NOT_IMPLEMENTED)", "engine accepts no inserts"),
        (62, "Syntax error: failed at position 23. (SYNTAX_ERROR)", "the server's version"),
    ] {
        let (inserts, error) = inserts_until_the_stop(code, text).await;
        assert_eq!(inserts, 1, "code {code}");
        assert!(error.to_string().contains(words), "{error}");
    }
}
