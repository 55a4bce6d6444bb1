//! Registries that fail: which faults retry a record, and which do not.

use std::time::Duration;

use kmr_formats::testing::{Fault, TestRegistry};
use kmr_formats::{RegistryError, SchemaRegistry};

use crate::kit::{Outcome, avro, framed, number_schema, registry, row};

fn status(status: u16, text: &str) -> Option<Fault> {
    Some(Fault::Status(status, text.to_owned()))
}

#[tokio::test]
async fn a_registry_that_is_down_retries_records_until_it_is_back() {
    let server = TestRegistry::start().await.unwrap();
    server.register(7, number_schema());
    let (url, stopped) = (server.url(), server.stop().await);
    let registry = registry(&url);
    for _ in 0..2 {
        let outcome = avro(&registry, framed(7, &[2])).await;
        let Outcome::Retry(text) = outcome else { panic!("{outcome:?}") };
        let is_refused = text.to_lowercase().contains("refused"); // words: quoted
        assert!(text.contains(&url) && is_refused, "{text}");
    }
    let _server = stopped.start().await.unwrap();
    assert_eq!(avro(&registry, framed(7, &[2])).await, row("{\"n\":1}"));
}

#[tokio::test]
async fn only_answers_of_a_registry_about_the_schema_are_dead_letters() {
    let server = TestRegistry::start().await.unwrap();
    server.register(7, number_schema());
    let registry = registry(&server.url());
    for (fault, expected) in [
        (
            status(500, r#"{"error_code": 50001, "message": "store is\ndown"}"#),
            "status 500, error code 50001: store isdown",
        ),
        (status(503, ""), "status 503"),
        (status(429, "slow down"), "status 429"),
        // A proxy whose registry is down.
        (status(404, "default backend - 404"), "status 404"),
        (
            status(404, r#"{"error_code": 404, "message": "HTTP 404 Not Found"}"#),
            "status 404, error code 404",
        ),
        (status(301, ""), "status 301"),
        (status(200, "<html>"), "status 200, but the answer is no schema"),
        (status(200, "{}"), "status 200, but the answer is no schema"),
    ] {
        server.set_fault(fault);
        let outcome = avro(&registry, framed(7, &[2])).await;
        let Outcome::Retry(text) = outcome else { panic!("{outcome:?}") };
        assert!(text.contains(expected), "{text}");
    }
    server.set_fault(None);
    assert_eq!(avro(&registry, framed(7, &[2])).await, row("{\"n\":1}"));
}

#[tokio::test]
async fn wrong_credentials_stop_the_consumer() {
    let server = TestRegistry::start().await.unwrap();
    let registry = SchemaRegistry::builder(server.url()).user("u", "s3cret").build().unwrap();
    for code in [401, 403] {
        server.set_fault(status(code, "no"));
        let outcome = avro(&registry, framed(7, &[2])).await;
        let Outcome::Stop(text) = outcome else { panic!("{outcome:?}") };
        assert!(text.contains(&format!("status {code}")) && !text.contains("s3cret"), "{text}");
    }
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_given_up_after_the_timeout() {
    let server = TestRegistry::start().await.unwrap();
    server.set_fault(Some(Fault::Silent));
    let limit = Duration::from_millis(100);
    let registry = SchemaRegistry::builder(server.url()).request_timeout(limit).build().unwrap();
    let error = registry.schema(7).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("no answer within 100ms"), "{error}");
}

/// Callers that wait share the failure. Otherwise each would wait for a timeout of its own, one
/// after the other.
#[tokio::test]
async fn callers_that_wait_for_the_same_id_share_a_failure() {
    let server = TestRegistry::start().await.unwrap();
    server.set_fault(Some(Fault::Silent));
    let limit = Duration::from_millis(100);
    let registry = SchemaRegistry::builder(server.url()).request_timeout(limit).build().unwrap();
    let results = futures_util::future::join_all((0..50).map(|_| registry.schema(7))).await;
    assert!(results.iter().all(|result| matches!(result, Err(RegistryError::Unavailable(_)))));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_caller_that_is_dropped_makes_way_for_the_next_one() {
    let server = TestRegistry::start().await.unwrap();
    server.register(7, number_schema());
    server.set_fault(Some(Fault::Silent));
    let registry = registry(&server.url());
    let first = registry.schema(7);
    assert!(tokio::time::timeout(Duration::from_millis(50), first).await.is_err());
    server.set_fault(None);
    assert_eq!(avro(&registry, framed(7, &[2])).await, row("{\"n\":1}"));
}

#[tokio::test]
async fn the_next_address_answers_when_the_first_does_not_and_is_kept() {
    let (down, server) = (TestRegistry::start().await.unwrap(), TestRegistry::start().await.unwrap());
    down.set_fault(status(503, ""));
    server.register(7, number_schema());
    server.register(8, number_schema());
    let registry = SchemaRegistry::builder(down.url()).fallback_url(server.url()).build().unwrap();
    assert_eq!(avro(&registry, framed(7, &[2])).await, row("{\"n\":1}"));
    assert_eq!(avro(&registry, framed(8, &[2])).await, row("{\"n\":1}"));
    assert_eq!((down.requests().len(), server.requests().len()), (1, 2));
    server.set_fault(status(500, ""));
    let error = registry.schema(9).await.unwrap_err().to_string();
    assert!(error.contains(&format!("{}: status 500", server.url())), "{error}");
    assert!(error.contains(&format!("{}: status 503", down.url())), "{error}");
}

#[tokio::test]
async fn an_answer_without_an_end_is_limited() {
    let server = TestRegistry::start().await.unwrap();
    server.set_fault(status(200, &"x".repeat((16 << 20) + 1)));
    let error = registry(&server.url()).schema(7).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("more than 16777216 bytes"), "{error}");
}
