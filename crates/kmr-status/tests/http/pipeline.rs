//! What the server answers while a consumer runs, is rebalanced, waits for its sink, and ends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::StatusCode;
use kmr_status::{LivenessFile, router};

use crate::kit::{MARKUP, Scene, get, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_sink_makes_a_consumer_not_ready_and_not_dead() {
    let scene = Scene::new();
    scene.sink.fails.store(true, Ordering::SeqCst);
    let running = scene.run("stalled");
    let router = router(running.handle.clone());
    let late = |answer: &crate::kit::Answer| {
        answer.code == StatusCode::SERVICE_UNAVAILABLE && answer.json()["late"][0]["topic"] == "numbers"
    };
    let readyz = until(&router, "/readyz", late).await.json();
    let worst = &readyz["late"][0];
    assert!(worst["partition"].is_i64() && worst["offset"].is_i64(), "{readyz}");
    let waits_for = worst["waits_for"].as_str().unwrap();
    assert!(waits_for.starts_with("reduce 1 attempt") && waits_for.ends_with(MARKUP), "{waits_for}");
    assert!(readyz["reason"].as_str().unwrap().contains("makes no progress"), "{readyz}");
    let livez = get(&router, "/livez").await;
    assert_eq!(livez.code, StatusCode::OK, "a restart would not help: {}", livez.body);
    let status = get(&router, "/status").await.json();
    assert!(status["deliveries"][0]["attempt"].as_u64().unwrap() > 1, "{status}");
    assert_eq!(status["deliveries"][0]["last_error"], MARKUP);
    assert!(status["lag_records"].as_i64().unwrap() > 0);

    scene.sink.fails.store(false, Ordering::SeqCst);
    until(&router, "/readyz", |answer| answer.code == StatusCode::OK).await;
    running.stop().await;
    for path in ["/livez", "/readyz"] {
        let answer = get(&router, path).await;
        let state = answer.json()["state"].as_str().map(str::to_owned);
        assert_eq!(
            (answer.code, state.as_deref()),
            (StatusCode::SERVICE_UNAVAILABLE, Some("ended")),
            "{path}"
        );
    }
    assert_eq!(get(&router, "/status").await.json()["reason"], "The consumer has ended.");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebalance_changes_partitions_and_leaves_no_path_without_an_answer() {
    let scene = Scene::new();
    let first = scene.run("moved");
    let router = router(first.handle.clone());
    let owned = |count: usize| {
        move |answer: &crate::kit::Answer| {
            assert_eq!(answer.code, StatusCode::OK);
            answer.json()["partitions"].as_array().unwrap().len() == count
        }
    };
    until(&router, "/status", owned(4)).await;
    let second = scene.run("moved");
    until(&router, "/status", owned(2)).await;
    assert_eq!(get(&router, "/livez").await.code, StatusCode::OK);
    // The partitions go first, and what it took is known at its end.
    let is_told = |answer: &crate::kit::Answer| {
        let status = answer.json();
        let events = status["events"].as_array().unwrap();
        let mut rebalances = events.iter().filter(|event| event["kind"] == "rebalance");
        rebalances.any(|event| event["text"].as_str().unwrap().starts_with("revoke: 2 partitions in "))
    };
    until(&router, "/status", is_told).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liveness_file_is_young_while_the_consumer_is_live_and_gone_after_its_end() {
    let scene = Scene::new();
    let running = scene.run("file");
    let path = std::env::temp_dir().join(format!("kmr-status-live-{}", std::process::id()));
    let keeping = LivenessFile::new(&path, Duration::from_millis(100)).spawn(running.handle.clone()).await;
    let keeping = keeping.unwrap();
    let written = || std::fs::metadata(&path).unwrap().modified().unwrap();
    let first = written();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while written() == first {
        assert!(std::time::Instant::now() < deadline, "the file is not written again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.stop().await;
    keeping.await.unwrap();
    assert!(!path.exists());
    let nowhere = path.join("no directory");
    let error = LivenessFile::new(&nowhere, Duration::from_secs(1)).spawn(scene.consumer("x").handle()).await;
    assert!(error.unwrap_err().to_string().contains("no directory"));
}
