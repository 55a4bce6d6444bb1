//! Actions, and who may request them.

use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use kmr_status::{StatusError, StatusServer, router};

use crate::kit::{Scene, TOKEN, get, idle, post, until};

const ALL: [&str; 5] =
    ["/actions/pause", "/actions/resume", "/actions/drain", "/actions/log-level", "/actions/nothing"];

#[tokio::test]
async fn without_a_token_of_the_server_every_action_is_forbidden() {
    let consumer = idle("g");
    let router = router(consumer.handle());
    for path in ALL {
        let answer = post(&router, path, Some(TOKEN), "").await;
        assert_eq!(answer.code, StatusCode::FORBIDDEN, "{path}");
        assert!(answer.json()["remedy"].as_str().unwrap().contains("actions_token"), "{path}");
    }
    assert!(!consumer.handle().status().await.all_paused);
}

#[tokio::test]
async fn a_wrong_or_missing_token_changes_nothing() {
    let consumer = idle("g");
    let router = StatusServer::new(consumer.handle()).actions_token(TOKEN).into_router().unwrap();
    for path in ALL {
        for token in [None, Some(""), Some("correct-horse-batterx"), Some("correct-horse-battery1")] {
            let answer = post(&router, path, token, "").await;
            assert_eq!(answer.code, StatusCode::UNAUTHORIZED, "{path} {token:?}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert!(!answer.body.contains(TOKEN));
        }
        assert_eq!(get(&router, path).await.code, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    assert!(!consumer.handle().status().await.all_paused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_resume_and_drain_reach_the_consumer() {
    let scene = Scene::new();
    let running = scene.run("actions");
    let router = StatusServer::new(running.handle.clone()).actions_token(TOKEN).into_router().unwrap();
    until(&router, "/readyz", |answer| answer.code == StatusCode::OK).await;
    assert_eq!(post(&router, "/actions/pause", Some(TOKEN), "").await.code, StatusCode::ACCEPTED);
    let paused = |all: bool| {
        move |answer: &crate::kit::Answer| {
            let status = answer.json();
            let partitions = status["partitions"].as_array().unwrap();
            partitions.len() == 4 && partitions.iter().all(|partition| partition["paused"] == all)
        }
    };
    let status = until(&router, "/status", paused(true)).await.json();
    assert_eq!((status["all_paused"].as_bool(), status["actions"].as_bool()), (Some(true), Some(true)));
    assert_eq!(post(&router, "/actions/resume", Some(TOKEN), "").await.code, StatusCode::ACCEPTED);
    until(&router, "/status", paused(false)).await;
    assert_eq!(post(&router, "/actions/nothing", Some(TOKEN), "").await.code, StatusCode::NOT_FOUND);
    assert_eq!(post(&router, "/actions/drain", Some(TOKEN), "").await.code, StatusCode::ACCEPTED);
    let report = running.task.await.unwrap().unwrap();
    assert_eq!(report.partitions.len(), 4, "the end was in order");
}

#[tokio::test]
async fn the_log_level_changes_if_the_program_gives_a_way_to() {
    let consumer = idle("g");
    let plain = StatusServer::new(consumer.handle()).actions_token(TOKEN).into_router().unwrap();
    let answer = post(&plain, "/actions/log-level", Some(TOKEN), r#"{"level":"debug"}"#).await;
    assert_eq!(answer.code, StatusCode::NOT_FOUND);
    assert!(answer.json()["remedy"].as_str().unwrap().contains("on_log_level"));

    let levels = Arc::<Mutex<Vec<String>>>::default();
    let set = levels.clone();
    let server = StatusServer::new(consumer.handle()).actions_token(TOKEN).on_log_level(move |level| {
        if level == "loud" {
            return Err("no such level: loud".to_owned());
        }
        set.lock().unwrap().push(level.to_owned());
        Ok(())
    });
    let router = server.into_router().unwrap();
    for (body, code) in [
        (r#"{"level":"debug"}"#, StatusCode::ACCEPTED),
        (r#"{"level":"loud"}"#, StatusCode::BAD_REQUEST),
        ("debug", StatusCode::BAD_REQUEST),
        ("", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(post(&router, "/actions/log-level", Some(TOKEN), body).await.code, code, "{body}");
    }
    assert_eq!(*levels.lock().unwrap(), ["debug"]);
    let huge = "x".repeat(100_000);
    let answer = post(&router, "/actions/log-level", Some(TOKEN), &huge).await;
    assert_eq!(answer.code, StatusCode::PAYLOAD_TOO_LARGE);
}

#[test]
fn tokens_come_from_a_file_and_are_never_shown() {
    let consumer = idle("g");
    let directory = std::env::temp_dir().join(format!("kmr-status-token-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let server = StatusServer::new(consumer.handle()).actions_token_file(&file);
    assert!(server.into_router().is_ok());
    std::fs::write(&file, "short\n").unwrap();
    let weak = StatusServer::new(consumer.handle()).actions_token_file(&file).into_router();
    assert!(matches!(weak, Err(StatusError::WeakToken { found: 5, .. })), "{weak:?}");
    std::fs::remove_dir_all(&directory).unwrap();
    let missing = StatusServer::new(consumer.handle()).actions_token_file(&file).into_router().unwrap_err();
    assert!(missing.to_string().contains(&*file.to_string_lossy()), "{missing}");
    let server = StatusServer::new(consumer.handle()).actions_token(TOKEN);
    assert!(!format!("{server:?} {weak:?} {missing:?}").contains(TOKEN));
}
