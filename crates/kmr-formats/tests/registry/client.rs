//! One registry that works: requests, cache, references, credentials.

use kmr_core::{CodedError, OwnedRecord};
use kmr_formats::testing::{Fault, TestRegistry};
use kmr_formats::{Avro, SchemaRegistry, SchemaType};
use serde_json::json;

use crate::kit::{Outcome, avro, call, framed, number_schema, registry, row};

#[tokio::test]
async fn a_schema_is_fetched_once_and_later_records_are_ready_at_once() {
    let server = TestRegistry::start().await.unwrap();
    server.register(7, number_schema());
    let registry = registry(&server.url());
    let stage = Avro::new(registry.clone()).rows::<Vec<u8>>();
    assert_eq!(call(&stage, framed(7, &[10])).await, (false, row("{\"n\":5}")));
    assert_eq!(call(&stage, framed(7, &[11])).await, (true, row("{\"n\":-6}")));
    assert_eq!(avro(&registry, framed(7, &[2])).await, row("{\"n\":1}"));
    assert_eq!(server.requests(), ["/schemas/ids/7"]);
    assert_eq!(registry.cached(7).unwrap().schema_type(), SchemaType::Avro);
}

#[tokio::test]
async fn each_address_is_checked() {
    let (good, bad) = (TestRegistry::start().await.unwrap(), TestRegistry::start().await.unwrap());
    bad.set_fault(Some(Fault::Status(401, String::new())));
    let other = TestRegistry::start().await.unwrap();
    other.set_fault(Some(Fault::Status(200, "{}".to_owned())));
    let stopped = TestRegistry::start().await.unwrap();
    let stopped_url = stopped.url();
    let _stopped = stopped.stop().await;
    let urls = [bad.url(), other.url(), stopped_url];
    let builder =
        urls.iter().fold(SchemaRegistry::builder(good.url()), |builder, url| builder.fallback_url(url));
    let checked = builder.build().unwrap().check().await;
    let texts: Vec<String> = checked
        .iter()
        .map(|(url, found)| found.as_ref().err().map_or_else(|| format!("{url} ok"), ToString::to_string))
        .collect();
    assert_eq!(texts[0], format!("{} ok", good.url()));
    assert!(texts[1].contains("rejects the credentials with status 401"), "{}", texts[1]);
    assert!(texts[2].contains("is no list of types: is it a registry?"), "{}", texts[2]);
    assert!(texts[3].contains(&urls[2]) && texts[3].contains("unavailable"), "{}", texts[3]);
    assert_eq!(good.requests(), ["/schemas/types"]);
}

#[tokio::test]
async fn a_hundred_records_that_wait_for_a_schema_send_one_request() {
    let server = TestRegistry::start().await.unwrap();
    server.register(7, number_schema());
    let registry = registry(&server.url());
    let calls: Vec<_> = (0..100).map(|_| avro(&registry, framed(7, &[2]))).collect();
    for outcome in futures_util::future::join_all(calls).await {
        assert_eq!(outcome, row("{\"n\":1}"));
    }
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn an_unknown_id_is_requested_once_and_is_a_dead_letter_with_its_code() {
    let server = TestRegistry::start().await.unwrap();
    let registry = registry(&server.url());
    let calls = (0..3).map(|_| avro(&registry, framed(9, &[2])));
    for outcome in futures_util::future::join_all(calls).await {
        let Outcome::DeadLetter(text) = outcome else { panic!("{outcome:?}") };
        assert!(text.starts_with("schema 9: ") && text.contains(&server.url()), "{text}");
    }
    assert_eq!(server.requests(), ["/schemas/ids/9"]);
    let record = OwnedRecord::new("t", 0, 0).with_payload(framed(9, &[2]));
    let kmr_core::Mapped::Pending(result) = Avro::new(registry).rows::<Vec<u8>>()(&record.as_record()) else {
        panic!("the id is not cached")
    };
    let error = result.await.unwrap_err();
    assert_eq!(error.downcast_ref::<CodedError>().unwrap().code(), "40403");
}

#[tokio::test]
async fn references_are_fetched_each_once_before_those_that_use_them() {
    let server = TestRegistry::start().await.unwrap();
    let enumeration =
        json!({ "schema": r#"{"type": "enum", "name": "x.Color", "symbols": ["RED", "BLUE"]}"# });
    let car = json!({
        "schema": r#"{"type": "record", "name": "x.Car", "fields": [{"name": "color", "type": "Color"}]}"#,
        "references": [{ "name": "x.Color", "subject": "a/color", "version": 2 }],
    });
    server.register_version("a%2Fcolor", 2, enumeration);
    server.register_version("car", 1, car);
    server.register(
        1,
        json!({
            "schema": r#"{"type": "record", "name": "y.Trip", "fields": [
                {"name": "car", "type": "x.Car"}, {"name": "sky", "type": "x.Color"}]}"#,
            "references": [
                { "name": "x.Car", "subject": "car", "version": 1 },
                { "name": "x.Color", "subject": "a/color", "version": 2 },
            ],
        }),
    );
    let registry = registry(&server.url());
    assert_eq!(avro(&registry, framed(1, &[0, 2])).await, row(r#"{"car":{"color":"RED"},"sky":"BLUE"}"#));
    assert_eq!(
        server.requests(),
        [
            "/schemas/ids/1",
            "/subjects/car/versions/1?deleted=true",
            "/subjects/a%2Fcolor/versions/2?deleted=true"
        ]
    );
    let names: Vec<_> = registry.cached(1).unwrap().references().map(|schema| schema.name.clone()).collect();
    assert_eq!(names, ["x.Color", "x.Car"]);
}

#[tokio::test]
async fn the_first_of_two_references_of_one_name_counts() {
    let server = TestRegistry::start().await.unwrap();
    let color = |symbols: &str| json!({ "schema": format!(r#"{{"type": "enum", "name": "x.Color", "symbols": [{symbols}]}}"#) });
    server.register_version("color", 1, color("\"RED\""));
    server.register_version("color", 2, color("\"RED\", \"BLUE\""));
    let of_color = |version: u32| json!({ "name": "x.Color", "subject": "color", "version": version });
    let car = r#"{"type": "record", "name": "x.Car", "fields": [{"name": "color", "type": "Color"}]}"#;
    server.register_version("car", 1, json!({ "schema": car, "references": [of_color(1)] }));
    let of_car = json!({ "name": "x.Car", "subject": "car", "version": 1 });
    let trip = r#"{"type": "record", "name": "y.Trip", "fields": [
        {"name": "car", "type": "x.Car"}, {"name": "sky", "type": "x.Color"}]}"#;
    server.register(1, json!({ "schema": trip, "references": [of_color(2), of_car] }));
    server.register(2, json!({ "schema": trip, "references": [of_car, of_color(2)] }));
    let registry = registry(&server.url());
    assert_eq!(avro(&registry, framed(1, &[2, 0])).await, row(r#"{"car":{"color":"BLUE"},"sky":"RED"}"#));
    // The reference of a reference is before the one that follows it.
    assert_eq!(avro(&registry, framed(2, &[0, 0])).await, row(r#"{"car":{"color":"RED"},"sky":"RED"}"#));
    let Outcome::DeadLetter(text) = avro(&registry, framed(2, &[2, 0])).await else { panic!("version 1") };
    assert!(text.starts_with("Avro, schema 2, path $.car.color"), "{text}");
}

#[tokio::test]
async fn references_that_form_a_cycle_or_are_unknown_are_dead_letters() {
    let server = TestRegistry::start().await.unwrap();
    let schema = r#"{"type": "record", "name": "A", "fields": []}"#;
    let refers = |subject: &str| json!({ "schema": schema, "references": [{ "name": subject, "subject": subject, "version": 1 }] });
    server.register_version("a", 1, refers("b"));
    server.register_version("b", 1, refers("a"));
    server.register_version("own", 1, refers("own"));
    for (id, subject, expected) in [
        (1, "a", "schema 1: its references form a cycle: a/1, b/1, a/1"),
        (2, "own", "schema 2: its references form a cycle: own/1, own/1"),
        (3, "none", "schema 3: the schema registry has no version 1 of \"none\", to which the schema refers"),
    ] {
        server.register(id, refers(subject));
        assert_eq!(
            avro(&registry(&server.url()), framed(id, &[])).await,
            Outcome::DeadLetter(expected.to_owned())
        );
    }
    // A chain without an end.
    for version in 0..2_000_u32 {
        let next = json!({ "name": format!("A{version}"), "subject": "long", "version": version + 1 });
        server.register_version("long", version, json!({ "schema": schema, "references": [next] }));
    }
    server.register(
        4,
        json!({ "schema": schema, "references": [{ "name": "A", "subject": "long", "version": 0 }] }),
    );
    let outcome = avro(&registry(&server.url()), framed(4, &[])).await;
    assert_eq!(outcome, Outcome::DeadLetter("schema 4: it has more than 1000 references".to_owned()));
}

#[tokio::test]
async fn a_schema_that_is_wrong_or_of_another_type_is_a_dead_letter() {
    let server = TestRegistry::start().await.unwrap();
    server.register(1, json!({ "schema": "{\"type\": \"recrod\"}" }));
    server.register(2, json!({ "schema": "{}", "schemaType": "JSON" }));
    let registry = registry(&server.url());
    for (id, expected) in [
        (1, "Avro, schema 1: the schema is wrong: the type \"recrod\" is not defined"),
        (2, "Avro, schema 2, byte 0: the schema is of another type: JSON Schema"),
    ] {
        for _ in 0..2 {
            assert_eq!(avro(&registry, framed(id, &[])).await, Outcome::DeadLetter(expected.to_owned()));
        }
    }
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn credentials_are_sent() {
    let server = TestRegistry::start().await.unwrap();
    server.register(7, number_schema());
    let builder = || SchemaRegistry::builder(server.url());
    for (built, expected) in [
        (builder(), None),
        (builder().user("Aladdin", "open sesame"), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")),
        (builder().bearer_token("abc"), Some("Bearer abc")),
    ] {
        assert_eq!(avro(&built.build().unwrap(), framed(7, &[2])).await, row("{\"n\":1}"));
        assert_eq!(server.authorization().as_deref(), expected);
    }
}
