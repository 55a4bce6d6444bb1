//! A request sets the quorum, and an unreached quorum is retried.

use std::time::Duration;

use kmr_core::{Attempt, Reducer, error_chain};

use super::mock::{Mock, description, written};
use super::table::exception;
use super::{batch, sink_error, writer};

#[tokio::test]
async fn an_unreached_quorum_is_retryable_and_explained() {
    for (code, text) in [
        (285, "Number of alive replicas (1) is less than requested quorum (2/2). (TOO_FEW_LIVE_REPLICAS)"),
        (
            286,
            "Quorum for previous write has not been satisfied yet. (UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE)",
        ),
        (319, "Unknown status of insert: timeout while waiting for quorum. (UNKNOWN_STATUS_OF_INSERT)"),
    ] {
        let steps = vec![description(), exception(code, text), written(2)];
        let mock = Mock::without_system_tables(steps).await;
        let batch = batch(writer(&mock.url).response_timeout(Duration::from_secs(10)).insert_quorum(2)).await;
        let (retryable, error) = sink_error(batch.deliver(Attempt::new(1)).await.unwrap_err());
        let shown = error_chain(&error);
        assert!(retryable && shown.contains("start the replicas"), "{shown}");
        let receipt = batch.deliver(Attempt::new(2)).await.unwrap().output;
        assert_eq!((receipt.rows, receipt.inserts), (2, 2));

        let received = mock.received();
        let line = |at: usize| received[at].head.lines().next().unwrap().to_owned();
        assert!(line(1).contains("insert_quorum=2&insert_quorum_timeout=8000"), "{}", line(1));
        assert_eq!(line(1), line(2), "the retry differs from the first request");
    }
}

#[tokio::test]
async fn a_quorum_can_be_set_only_once() {
    let twice = writer("http://db").insert_quorum(2).setting("insert_quorum", "auto").start().await;
    let text = error_chain(&*twice.unwrap_err());
    assert!(text.contains("a quorum is set twice"), "{text}");
}
