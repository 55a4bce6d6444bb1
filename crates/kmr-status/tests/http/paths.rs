//! Each path, its content type and the headers of every response.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use kmr_status::router;

use crate::kit::{MARKUP, get, idle, post, send};

const PATHS: [(&str, &str, StatusCode); 8] = [
    ("/", "text/html; charset=utf-8", StatusCode::OK),
    ("/page.css", "text/css; charset=utf-8", StatusCode::OK),
    ("/page.js", "text/javascript; charset=utf-8", StatusCode::OK),
    ("/icon.svg", "image/svg+xml", StatusCode::OK),
    ("/livez", "application/json", StatusCode::OK),
    ("/readyz", "application/json", StatusCode::SERVICE_UNAVAILABLE),
    ("/status", "application/json", StatusCode::OK),
    ("/metrics", "text/plain; version=0.0.4; charset=utf-8", StatusCode::OK),
];

#[tokio::test]
async fn every_path_answers_before_the_first_connection_with_its_type_and_strict_headers() {
    let consumer = idle("g");
    let router = router(consumer.handle());
    for (path, content_type, code) in PATHS {
        let answer = get(&router, path).await;
        assert_eq!((answer.code, answer.header("content-type")), (code, content_type), "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(post(&router, path, None, "").await.code, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    assert_eq!(get(&router, "/elsewhere").await.code, StatusCode::NOT_FOUND);
    let livez = get(&router, "/livez").await.json();
    assert_eq!((livez["live"].as_bool(), livez["state"].as_str()), (Some(true), Some("starting")));
    let status = get(&router, "/status").await.json();
    assert_eq!((status["state"].as_str(), status["actions"].as_bool()), (Some("starting"), Some(false)));
}

#[tokio::test]
async fn metrics_are_open_metrics_if_the_request_accepts_them() {
    let consumer = idle("g");
    let router = router(consumer.handle());
    for (accept, open) in [
        ("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", true),
        ("text/plain, application/openmetrics-text", true),
        ("application/openmetrics-text;q=0, text/plain", false),
        ("text/plain;version=0.0.4", false),
        ("*/*", false),
    ] {
        let request = Request::get("/metrics").header("accept", accept).body(Body::empty()).unwrap();
        let answer = send(&router, request).await;
        let is_open = answer.header("content-type").starts_with("application/openmetrics-text");
        assert_eq!((is_open, answer.body.ends_with("# EOF\n")), (open, open), "{accept}");
        assert!(answer.body.contains("kmr_connected 0"), "{}", answer.body);
    }
}

#[tokio::test]
async fn text_that_would_be_markup_is_in_json_only() {
    let consumer = idle(MARKUP);
    let router = router(consumer.handle());
    assert_eq!(get(&router, "/status").await.json()["group"], MARKUP);
    for path in ["/", "/page.js"] {
        assert!(!get(&router, path).await.body.contains(MARKUP), "{path}");
    }
}

#[tokio::test]
async fn a_nested_page_finds_its_files_with_and_without_a_slash_at_its_end() {
    let consumer = idle("g");
    let app = Router::new().nest("/ops/kmr", router(consumer.handle()));
    for (path, base) in [("/ops/kmr", "kmr/"), ("/ops/kmr/", "./")] {
        let answer = get(&app, path).await;
        if answer.code == StatusCode::NOT_FOUND && path.ends_with('/') {
            continue; // axum serves the root of a nested router at one of the two
        }
        assert_eq!(answer.code, StatusCode::OK, "{path}");
        assert!(answer.body.contains(&format!("<base href=\"{base}\"")), "{path}: {}", answer.body);
    }
    for (path, ..) in &PATHS[1..] {
        assert_ne!(get(&app, &format!("/ops/kmr{path}")).await.code, StatusCode::NOT_FOUND, "{path}");
    }
    let root = get(&router(consumer.handle()), "/").await;
    assert!(root.body.contains("<base href=\"./\"") && !root.body.contains("{base}"));
}
