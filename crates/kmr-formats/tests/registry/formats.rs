//! What records become, and input that is bad in each way.

use kmr_core::{Mapped, OwnedRecord};
use kmr_formats::testing::TestRegistry;
use kmr_formats::{Avro, Binary, Protobuf};
use prost::Message;
use serde::Deserialize;
use serde_json::json;

use crate::kit::{Outcome, avro, call, framed, number_schema, protobuf, registry, row};

/// Generated code has this form.
#[derive(Clone, PartialEq, Message)]
struct Reading {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(string, optional, tag = "2")]
    tag: Option<String>,
    #[prost(double, tag = "3")]
    ratio: f64,
    #[prost(bytes, tag = "4")]
    raw: Vec<u8>,
    #[prost(message, optional, boxed, tag = "5")]
    next: Option<Box<Reading>>,
}

const READING: &str = r#"syntax = "proto3";
package x;
import "shared/kind.proto";
import "google/protobuf/timestamp.proto";
message Other {
  message Inner { uint64 n = 1; }
}
message Reading {
  int64 id = 1;
  optional string tag = 2;
  double ratio = 3;
  bytes raw = 4;
  Reading next = 5;
  Kind kind = 6;
  google.protobuf.Timestamp at = 7;
  map<int32, string> names = 8;
}
"#;

fn register(server: &TestRegistry) {
    let kind = r#"syntax = "proto3"; package x; enum Kind { NONE = 0; SALE = 1; }"#;
    server.register_version("kind", 3, json!({ "schema": kind, "schemaType": "PROTOBUF" }));
    let reference = json!({ "name": "shared/kind.proto", "subject": "kind", "version": 3 });
    server.register(5, json!({ "schema": READING, "schemaType": "PROTOBUF", "references": [reference] }));
}

#[tokio::test]
async fn messages_of_protobuf_become_json_and_types() {
    let server = TestRegistry::start().await.unwrap();
    register(&server);
    let registry = registry(&server.url());
    let next = Some(Box::new(Reading { id: 1 << 60, ..Reading::default() }));
    let reading =
        Reading { id: -5, tag: Some("a".to_owned()), ratio: f64::INFINITY, raw: vec![0, 255], next };
    // Kind, time and names, which the type does not have.
    let names = [&[0x42, 5, 8, 7, 0x12, 1, b'b'][..], &[0x42, 5, 8, 6, 0x12, 1, b'a']].concat();
    let more = [&reading.encode_to_vec()[..], &[0x30, 1, 0x3a, 2, 0x08, 5], &names].concat();
    let payload = framed(5, &[&[2, 2][..], &more].concat());
    let Outcome::Row(text) = protobuf(&registry, payload.clone()).await else { panic!("a row") };
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let next = json!({ "id": 1_i64 << 60, "ratio": 0.0, "raw": "", "kind": "NONE", "names": {} });
    let expected = json!({
        "id": -5, "tag": "a", "ratio": "inf", "raw": "AP8=", "next": next, "kind": "SALE",
        "at": "1970-01-01T00:00:05Z", "names": { "6": "a", "7": "b" },
    });
    // In the same order in each process, because exactly-once mode compares rows.
    assert!(text.contains(r#""names":{"6":"a","7":"b"}"#), "{text}");
    assert_eq!(value, expected);

    let record = OwnedRecord::new("t", 0, 0).with_payload(payload);
    assert_eq!(Protobuf::message::<Reading>(&record.as_record()).unwrap(), reading);
    #[derive(Debug, PartialEq, Deserialize)]
    struct Typed {
        id: i64,
        kind: String,
    }
    let Mapped::Ready(typed) = Protobuf::new(registry.clone()).typed::<Typed>()(&record.as_record()) else {
        panic!("the schema is cached")
    };
    assert_eq!(typed.unwrap(), Typed { id: -5, kind: "SALE".to_owned() });

    // The first message of the file, and one inside of it.
    assert_eq!(protobuf(&registry, framed(5, &[0])).await, row("{}"));
    assert_eq!(protobuf(&registry, framed(5, &[4, 0, 0, 8, 7])).await, row("{\"n\":7}"));
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn the_first_version_of_an_imported_file_counts() {
    let server = TestRegistry::start().await.unwrap();
    let file = |text: &str, references: serde_json::Value| {
        let schema = format!("syntax = \"proto3\"; {text}");
        json!({ "schema": schema, "schemaType": "PROTOBUF", "references": references })
    };
    let common = |version: u32| json!({ "name": "common.proto", "subject": "common", "version": version });
    let money = json!({ "name": "money.proto", "subject": "money", "version": 1 });
    server.register_version("common", 1, file("message Id { int64 n = 1; }", json!([])));
    server.register_version("common", 2, file("message Id { int64 n = 1; int64 m = 2; }", json!([])));
    let text = "import \"common.proto\"; message Money { Id id = 1; }";
    server.register_version("money", 1, file(text, json!([common(1)])));
    let text =
        "import \"common.proto\"; import \"money.proto\"; message Root { Id id = 1; Money money = 2; }";
    server.register(1, file(text, json!([common(2), money])));
    let outcome = protobuf(&registry(&server.url()), framed(1, &[0, 0x0a, 4, 8, 5, 16, 6])).await;
    assert_eq!(outcome, row(r#"{"id":{"n":5,"m":6}}"#));
}

#[tokio::test]
async fn values_in_wrappers_are_written_as_the_values_themselves() {
    let server = TestRegistry::start().await.unwrap();
    let text = r#"syntax = "proto3"; import "google/protobuf/wrappers.proto"; message M {
        google.protobuf.DoubleValue d = 1; google.protobuf.FloatValue f = 2; google.protobuf.Int64Value n = 3;
        google.protobuf.BytesValue b = 4; google.protobuf.StringValue s = 5; google.protobuf.BoolValue t = 6; }"#;
    server.register(1, json!({ "schema": text, "schemaType": "PROTOBUF" }));
    let registry = registry(&server.url());
    let double = [&[0x0a, 9, 9][..], &f64::NAN.to_le_bytes()].concat();
    let float = [&[0x12, 5, 0x0d][..], &f32::NEG_INFINITY.to_le_bytes()].concat();
    let more = [0x1a, 2, 8, 7, 0x22, 3, 0x0a, 1, b'x', 0x2a, 0, 0x32, 2, 8, 1];
    let payload = framed(1, &[&[0][..], &double, &float, &more].concat());
    assert_eq!(
        protobuf(&registry, payload.clone()).await,
        row(r#"{"d":"nan","f":"-inf","n":7,"b":"eA==","s":"","t":true}"#)
    );
    let stage = Protobuf::new(registry).binary(Binary::Text).rows::<Vec<u8>>();
    assert_eq!(call(&stage, payload).await.1, row(r#"{"d":"nan","f":"-inf","n":7,"b":"x","s":"","t":true}"#));
}

/// The registry has no reference for these imports.
const EVENT: &str = r#"syntax = "proto3";
package shop;
import "confluent/meta.proto";
import "confluent/type/decimal.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/type/date.proto";
import "google/type/money.proto";
import "google/type/timeofday.proto";
message Event {
  confluent.type.Decimal total = 1 [(confluent.field_meta).doc = "with tax"];
  google.type.Date day = 2;
  google.type.TimeOfDay at = 3;
  google.type.Money price = 4;
  google.protobuf.Any more = 5;
}
message Names { map<int32, string> names = 1; bytes raw = 2; }
"#;

/// A field whose value has a length.
fn sized(number: u8, value: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(value.len() as u64, &mut field);
    field.extend_from_slice(value);
    field
}

/// The field `more` with a message of this type.
fn any(name: &str, message: &[u8]) -> Vec<u8> {
    let url = format!("type.googleapis.com/{name}");
    sized(5, &[sized(1, url.as_bytes()), sized(2, message)].concat())
}

#[tokio::test]
async fn files_that_a_registry_of_confluent_leaves_out_are_known() {
    let server = TestRegistry::start().await.unwrap();
    server.register(1, json!({ "schema": EVENT, "schemaType": "PROTOBUF" }));
    let registry = registry(&server.url());
    let total = sized(1, &[0x0a, 2, 0xfb, 0x32, 0x10, 4, 0x18, 2]);
    let day = sized(2, &[0x08, 0xea, 0x0f, 0x10, 12, 0x18, 1]);
    let at = sized(3, &[0x08, 23, 0x10, 59, 0x18, 58, 0x20, 7]);
    let price = sized(4, &[0x0a, 3, b'E', b'U', b'R', 0x10, 5]);
    let payload = framed(1, &[&[0][..], &total, &day, &at, &price].concat());
    let expected = concat!(
        r#"{"total":"-12.30","day":"2026-12-01","at":"23:59:58.000000007","#,
        r#""price":{"currency_code":"EUR","units":5,"nanos":0}}"#
    );
    assert_eq!(protobuf(&registry, payload).await, row(expected));
}

#[tokio::test]
async fn messages_of_any_type_are_written_in_the_same_order_in_each_process() {
    let server = TestRegistry::start().await.unwrap();
    server.register(1, json!({ "schema": EVENT, "schemaType": "PROTOBUF" }));
    let registry = registry(&server.url());
    let names: Vec<u8> = (0..20_u8).rev().flat_map(|n| sized(1, &[8, n, 0x12, 1, b'a' + n])).collect();
    let in_order: Vec<String> = (0..20_u8).map(|n| format!("\"{n}\":\"{}\"", char::from(b'a' + n))).collect();
    let names = [names, sized(2, &[0, 255])].concat();
    let day = sized(2, &[0x08, 0xea, 0x0f, 0x10, 12, 0x18, 1]);
    for (more, expected) in [
        (
            any("shop.Names", &names),
            format!(
                r#"{{"@type":"type.googleapis.com/shop.Names","names":{{{}}},"raw":"AP8="}}"#,
                in_order.join(",")
            ),
        ),
        (
            any("google.protobuf.Duration", &[8, 5]),
            r#"{"@type":"type.googleapis.com/google.protobuf.Duration","value":"5s"}"#.to_owned(),
        ),
        (
            any("google.type.Date", &day[2..]),
            r#"{"@type":"type.googleapis.com/google.type.Date","value":"2026-12-01"}"#.to_owned(),
        ),
        (
            any("shop.Event", &any("shop.Event", &[])),
            concat!(
                r#"{"@type":"type.googleapis.com/shop.Event","#,
                r#""more":{"@type":"type.googleapis.com/shop.Event"}}"#
            )
            .to_owned(),
        ),
        (sized(5, &[]), "{}".to_owned()),
    ] {
        let payload = framed(1, &[&[0][..], &more].concat());
        assert_eq!(protobuf(&registry, payload).await, row(&format!(r#"{{"more":{expected}}}"#)));
    }
    let deep = (0..300).fold(Vec::new(), |inner, _| any("shop.Event", &inner));
    for (more, expected) in [
        (any("shop.Unknown", &[]), "an Any holds a message of shop.Unknown, which neither the schema"),
        (any("shop.Names", &[0xff]), "an Any holds no message of shop.Names"),
        (deep, "more than 100 messages of google.protobuf.Any"),
        (
            sized(2, &[0x08, 0xea, 0x0f]),
            "day: a google.type.Date with year 2026, month 0 and day 0 is no date",
        ),
    ] {
        let outcome = protobuf(&registry, framed(1, &[&[0][..], &more].concat())).await;
        let Outcome::DeadLetter(error) = outcome else { panic!("{outcome:?}") };
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn bad_messages_of_protobuf_are_dead_letters_that_name_their_place() {
    let server = TestRegistry::start().await.unwrap();
    register(&server);
    server.register(6, json!({ "schema": "syntax = \"proto3\"; message {", "schemaType": "PROTOBUF" }));
    server.register(7, number_schema());
    let registry = registry(&server.url());
    // Each level is in the length of the one around it.
    let mut deep = Vec::new();
    for _ in 0..10_000 {
        let mut outer = vec![0x2a];
        prost::encoding::encode_varint(deep.len() as u64, &mut outer);
        outer.extend_from_slice(&deep);
        deep = outer;
    }
    let large = [&[0x0a, 0x80, 0x80, 0x40][..], &[0x31; 1 << 20]].concat();
    for (payload, expected) in [
        (Vec::new(), "Protobuf, byte 0: the record is empty"),
        (b"{\"id\": 5}".to_vec(), "Protobuf, byte 0: the record starts like JSON"),
        (b"\xef\xbb\xbf".to_vec(), "Protobuf, byte 0: the record starts like JSON"),
        (framed(5, &[]), "Protobuf, schema 5, byte 5: the record ends within the numbers"),
        (framed(5, &[2, 8]), "Protobuf, schema 5, byte 5: the schema has no message with the numbers [4]"),
        (framed(5, &[2, 2, 8]), "Protobuf, schema 5, byte 7: no message of x.Reading"),
        (framed(5, &[2, 2, 0x12, 1, 0xff]), "Protobuf, schema 5, byte 7: no message of x.Reading"),
        (framed(5, &[&[2, 2][..], &deep].concat()), "Protobuf, schema 5, byte 7: no message of x.Reading"),
        (framed(5, &[&[2, 2][..], &large].concat()), "Protobuf, schema 5, byte 7: no message of x.Reading"),
        (framed(6, &[0]), "Protobuf, schema 6, byte 0: the schema is wrong: "),
        (framed(7, &[0]), "Protobuf, schema 7, byte 0: the schema is of another type: Avro"),
    ] {
        let outcome = protobuf(&registry, payload).await;
        let Outcome::DeadLetter(text) = outcome else { panic!("{expected}: {outcome:?}") };
        assert!(text.starts_with(expected), "{expected}: {text}");
    }
}

#[tokio::test]
async fn bad_records_of_avro_are_dead_letters_that_name_their_place() {
    let server = TestRegistry::start().await.unwrap();
    server.register(7, number_schema());
    let registry = registry(&server.url());
    for (payload, expected) in [
        (Vec::new(), "Avro, byte 0: the record is empty"),
        (b"{\"n\": 5}".to_vec(), "Avro, byte 0: the record starts like JSON"),
        (b"\xef\xbb\xbf{}".to_vec(), "Avro, byte 0: the record starts like JSON"),
        (b"\0\0\0".to_vec(), "Avro, byte 0: the record ends within the five bytes"),
        (framed(7, &[]), "Avro, schema 7, path $.n, byte 5: the record ends within a number"),
        (framed(7, &[2, 2]), "Avro, schema 7, byte 6: 1 more bytes after the value"),
    ] {
        // The first time after the schema was fetched, the second time with the cached one.
        for _ in 0..2 {
            let outcome = avro(&registry, payload.clone()).await;
            let Outcome::DeadLetter(text) = outcome else { panic!("{expected}: {outcome:?}") };
            assert!(text.starts_with(expected), "{expected}: {text}");
        }
    }
    let tombstone = OwnedRecord::new("t", 0, 0);
    let Mapped::Ready(Err(error)) = Avro::new(registry).rows::<Vec<u8>>()(&tombstone.as_record()) else {
        panic!("an error at once")
    };
    assert!(error.to_string().contains("tombstone"), "{error}");
}
