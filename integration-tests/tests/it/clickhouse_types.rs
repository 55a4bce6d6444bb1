//! The ClickHouse sink against the real server: column types, one part per batch, deduplication of
//! retries, and the server's errors.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use integration_tests::{ClickHouse, Database, test_name};
use kmr_core::{Attempt, Reducer, Rows, StopConsumer, error_chain};
use kmr_sinks::clickhouse::client::Client;
use kmr_sinks::clickhouse::client::types::{BFloat16, Int256, UInt256};
use kmr_sinks::clickhouse::{ClickHouseWriter, Compression, Row};
use serde::Serialize;

use crate::writer::{batch, deliver};

/// A writer into a table of the test's database.
pub(crate) fn writer<R: Row + Serialize + Send + 'static>(
    database: &Database,
    table: &str,
) -> ClickHouseWriter<R> {
    ClickHouseWriter::new(database.server().url(), table).database(database.name())
}

pub(crate) async fn query(client: &Client, query: &str) -> String {
    let mut bytes = client.query(query).fetch_bytes("TSVRaw").unwrap();
    String::from_utf8(bytes.collect().await.unwrap().to_vec()).unwrap().trim_end().to_owned()
}

#[derive(Serialize, Clone, Copy)]
enum Colour {
    Red,
    Green,
}

#[derive(Serialize)]
enum Either {
    // ClickHouse sorts a Variant's types by name: String, UInt64.
    Text(String),
    Number(u64),
}

#[derive(Serialize)]
struct Point {
    x: i32,
    y: Option<String>,
}

#[derive(Row, Serialize)]
struct Everything {
    id: u64,
    a_bool: bool,
    u8_: u8,
    i8_: i8,
    u16_: u16,
    i16_: i16,
    i32_: i32,
    i64_: i64,
    u128_: u128,
    i128_: i128,
    u256_: UInt256,
    i256_: Int256,
    f32_: f32,
    f64_: f64,
    bf16_: BFloat16,
    d32: i32,
    d64: i64,
    d128: i128,
    text: String,
    low: Option<String>,
    fixed: [u8; 4],
    padded: String,
    uuid: (u64, u64),
    date: u16,
    date32: i32,
    time: u32,
    time64: i64,
    #[serde(with = "kmr_sinks::clickhouse::serde::ipv4")]
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    e8: Colour,
    e16: i16,
    none: Option<u32>,
    some: Option<u32>,
    bare: u32,
    list: Vec<Vec<String>>,
    array: [u16; 3],
    map: BTreeMap<String, u8>,
    pairs: Vec<(String, u8)>,
    tuple: (u8, String),
    named: Point,
    either: Either,
    other: Option<Either>,
    json: String,
    point: (f64, f64),
    total: u64,
}

const EVERYTHING: &str = "CREATE TABLE everything (
    id UInt64, added String DEFAULT 'd', a_bool Bool, u8_ UInt8, i8_ Int8, u16_ UInt16, i16_ Int16, i32_ Int32, i64_ Int64,
    u128_ UInt128, i128_ Int128, u256_ UInt256, i256_ Int256, f32_ Float32, f64_ Float64, bf16_ BFloat16,
    d32 Decimal(9, 2), d64 Decimal(18, 4), d128 Decimal(38, 6),
    text String, low LowCardinality(Nullable(String)), fixed FixedString(4), padded FixedString(4), uuid UUID,
    date Date, date32 Date32, time DateTime('UTC'), time64 DateTime64(3, 'UTC'), v4 IPv4, v6 IPv6,
    e8 Enum8('Red' = 1, 'Green' = -2), e16 Enum16('it\\'s, (so)' = 300, 'b' = 2),
    none Nullable(UInt32), some Nullable(UInt32), bare Nullable(UInt32),
    list Array(Array(String)), array Array(UInt16), map Map(LowCardinality(String), UInt8), pairs Map(String, UInt8),
    tuple Tuple(UInt8, String), named Tuple(x Int32, y Nullable(String)),
    either Variant(UInt64, String), other Variant(UInt64, String), json JSON, point Point,
    total SimpleAggregateFunction(sum, UInt64), day Date MATERIALIZED toDate(time)
) ENGINE = MergeTree ORDER BY id";

fn everything(id: u64) -> Everything {
    Everything {
        id,
        a_bool: true,
        u8_: 255,
        i8_: -1,
        u16_: 65535,
        i16_: -2,
        i32_: -3,
        i64_: i64::MIN,
        u128_: u128::MAX,
        i128_: -4,
        u256_: UInt256::from(7_u64),
        i256_: Int256::from(-8_i64),
        f32_: 1.5,
        f64_: -2.25,
        bf16_: BFloat16::from_f32(1.0),
        d32: 12345,
        d64: -12345,
        d128: 1,
        text: "grüße\n".into(),
        low: Some("low".into()),
        fixed: *b"abcd",
        padded: "é".into(),
        uuid: (0x0011_2233_4455_6677, 0x8899_aabb_ccdd_eeff),
        date: 1,
        date32: -1,
        time: 86_400,
        time64: 1_500,
        v4: Ipv4Addr::new(10, 0, 0, 1),
        v6: "2001:db8::1".parse().unwrap(),
        e8: if id.is_multiple_of(2) { Colour::Green } else { Colour::Red },
        e16: 300,
        none: None,
        some: Some(9),
        bare: 10,
        list: vec![vec![], vec!["x".into(), String::new()]],
        array: [1, 2, 3],
        map: [("k".to_owned(), 1)].into(),
        pairs: vec![("p".into(), 2)],
        tuple: (3, "t".into()),
        named: Point { x: -5, y: None },
        either: if id.is_multiple_of(2) { Either::Text("e".into()) } else { Either::Number(11) },
        other: None,
        json: r#"{"a":{"b":[1,2]}}"#.into(),
        point: (0.5, 1.5),
        total: 12,
    }
}

#[tokio::test]
async fn every_type_arrives_unchanged() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    let client = database.client();
    client.query(EVERYTHING).execute().await.unwrap();
    for compression in [Compression::None, Compression::Lz4] {
        let mut writer = writer::<Everything>(&database, "everything").compression(compression);
        writer.start().await.unwrap();
        let receipt = deliver(&mut writer, (0..1000).map(everything)).await.unwrap().output;
        assert_eq!(receipt.written_rows, Some(1000), "the server has written all rows");
    }
    let wrong = query(
        &client,
        "SELECT countIf(NOT (a_bool AND u8_ = 255 AND i8_ = -1 AND u16_ = 65535 AND i16_ = -2 AND i32_ = -3
            AND i64_ = toInt64('-9223372036854775808') AND u128_ = toUInt128('340282366920938463463374607431768211455')
            AND i128_ = -4 AND u256_ = 7 AND i256_ = -8 AND f32_ = 1.5 AND f64_ = -2.25 AND toFloat32(bf16_) = 1
            AND toString(d32) = '123.45' AND toString(d64) = '-1.2345' AND toString(d128) = '0.000001'
            AND text = 'grüße\\n' AND low = 'low' AND fixed = 'abcd' AND padded = 'é\\0\\0'
            AND toString(uuid) = '00112233-4455-6677-8899-aabbccddeeff'
            AND date = '1970-01-02' AND date32 = '1969-12-31' AND time = '1970-01-02 00:00:00'
            AND toString(time64) = '1970-01-01 00:00:01.500' AND toString(v4) = '10.0.0.1' AND toString(v6) = '2001:db8::1'
            AND e8 = if(id % 2 = 0, 'Green', 'Red') AND e16 = 'it\\'s, (so)'
            AND none IS NULL AND some = 9 AND bare = 10 AND list = [[], ['x', '']] AND array = [1, 2, 3]
            AND map['k'] = 1 AND pairs['p'] = 2 AND tuple = (3, 't') AND named.x = -5 AND named.y IS NULL
            AND toString(either) = if(id % 2 = 0, 'e', '11') AND other IS NULL AND toString(json) LIKE '%b%'
            AND point = (0.5, 1.5) AND total = 12 AND added = 'd' AND day = '1970-01-02')) FROM everything",
    )
    .await;
    assert_eq!(wrong, "0", "every value is stored unchanged");
    assert_eq!(query(&client, "SELECT count() FROM everything").await, "2000", "every row is stored once");
}

#[derive(Row, Serialize)]
struct Small {
    partition: u32,
    offset: u64,
}

#[derive(Row, Serialize)]
struct Wrong {
    partition: u64,
    offset: u64,
}

async fn small_table(test: &str, table_settings: &str) -> Database {
    let database = ClickHouse::shared().await.unwrap().database(test).await.unwrap();
    let ddl = format!(
        "CREATE TABLE t (partition UInt32, offset UInt64) ENGINE = MergeTree ORDER BY (partition, offset) {table_settings}"
    );
    database.exec(&ddl).await.unwrap();
    database
}

fn small(count: u64) -> Vec<Small> {
    (0..count).map(|offset| Small { partition: 1, offset }).collect()
}

#[tokio::test]
async fn a_batch_is_one_part_and_a_retry_is_dropped_by_a_deduplication_window() {
    let database = small_table(test_name!(), "SETTINGS non_replicated_deduplication_window = 100").await;
    let view = "CREATE MATERIALIZED VIEW v ENGINE = MergeTree ORDER BY offset AS SELECT offset FROM t";
    database.exec(view).await.unwrap();
    let mut writer = writer::<Small>(&database, "t").max_rows(2_000_000);
    writer.start().await.unwrap();
    let batch = batch(&mut writer, small(1_500_000));
    for attempt in 1..=2 {
        let receipt = batch.deliver(Attempt::new(attempt)).await.unwrap().output;
        assert_eq!(receipt.rows, 1_500_000);
    }
    assert_eq!(database.count("t").await.unwrap(), 1_500_000, "the retry is deduplicated");
    let parts =
        "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 't' AND level = 0";
    assert_eq!(database.number(parts).await.unwrap(), 1, "a batch is one part");
    deliver(&mut writer, small(10)).await.unwrap();
    deliver(&mut writer, small(10)).await.unwrap();
    assert_eq!(
        database.count("t").await.unwrap(),
        1_500_020,
        "another batch with the same rows is not deduplicated"
    );
}

async fn start_error(mut writer: ClickHouseWriter<Small>) -> String {
    error_chain(&*writer.start().await.unwrap_err())
}

#[tokio::test]
async fn configuration_mistakes_are_named_at_start() {
    let database = small_table(test_name!(), "").await;
    let missing = start_error(writer(&database, "nowhere")).await;
    assert!(missing.contains("nowhere") && missing.contains("60"), "{missing}");
    let elsewhere = start_error(writer(&database, "t").database("no_such_database")).await;
    assert!(elsewhere.contains("no_such_database"), "{elsewhere}");
    let setting = start_error(writer(&database, "t").setting("nonsense", "1")).await;
    assert!(setting.contains("nonsense"), "{setting}");
}

#[tokio::test]
async fn a_field_of_another_type_stops_the_consumer_at_its_first_row() {
    let database = small_table(test_name!(), "").await;
    let mut writer = writer::<Wrong>(&database, "t");
    writer.start().await.unwrap();
    let error = writer.new_rows().push(Wrong { partition: 1, offset: 1 }).unwrap_err();
    assert!(error.is::<StopConsumer>(), "the error stops the consumer");
    let text = error_chain(&*error);
    assert!(text.contains("partition") && text.contains("UInt32"), "{text}");
}

#[tokio::test]
async fn a_table_dropped_after_start_fails_the_delivery_with_the_servers_error() {
    let database = small_table(test_name!(), "").await;
    let mut writer = writer::<Small>(&database, "t");
    writer.start().await.unwrap();
    database.exec("DROP TABLE t").await.unwrap();
    let error = deliver(&mut writer, [Small { partition: 1, offset: 1 }]).await.unwrap_err();
    assert!(!error.is_retryable(), "a missing table is not retried");
    let text = error_chain(&*error.into_source());
    assert!(text.contains("60"), "{text}");
}

#[derive(Row, Serialize)]
struct Rarer {
    id: u64,
    d256: Int256,
    time: i32,
    time64: i64,
    nanos: i64,
    maybe_at: Option<i64>,
    ring: Vec<(f64, f64)>,
    polygon: Vec<Vec<(f64, f64)>>,
    holes: Vec<Option<u8>>,
    nested: BTreeMap<String, Vec<Option<i64>>>,
    e16: String,
    maybe_e8: Option<Colour>,
    low_fixed: [u8; 2],
    maybe_d: Option<i64>,
    maybe_uuid: Option<(u64, u64)>,
    v6_map: BTreeMap<u16, Ipv6Addr>,
    tuple: (Vec<u8>, (Option<String>, bool)),
    variants: Vec<Either>,
}

const RARER: &str = "CREATE TABLE rarer (
    id UInt64, d256 Decimal(76, 3), time Time, time64 Time64(3), nanos DateTime64(9, 'Asia/Tokyo'), maybe_at Nullable(DateTime64(0)),
    ring Ring, polygon Polygon, holes Array(Nullable(UInt8)), nested Map(LowCardinality(String), Array(Nullable(Int64))),
    e16 Enum16('x' = -300, 'y' = 300), maybe_e8 Nullable(Enum8('Red' = 1, 'Green' = 2)), low_fixed LowCardinality(FixedString(2)),
    maybe_d Nullable(Decimal(18, 2)), maybe_uuid Nullable(UUID), v6_map Map(UInt16, IPv6),
    tuple Tuple(a Array(UInt8), b Tuple(Nullable(String), Bool)), variants Array(Variant(String, UInt64))
) ENGINE = MergeTree ORDER BY id";

fn rarer(id: u64) -> Rarer {
    let even = id.is_multiple_of(2);
    Rarer {
        id,
        d256: Int256::from(-1_234_567_i64),
        time: -3_661,
        time64: 3_661_500,
        nanos: 1_500_000_000_000_000_001,
        maybe_at: even.then_some(86_400),
        ring: vec![(0.0, 0.5), (1.0, 1.5)],
        polygon: vec![vec![(0.0, 0.0)], vec![]],
        holes: vec![Some(1), None],
        nested: [("a".to_owned(), vec![None, Some(-1)]), ("b".to_owned(), vec![])].into(),
        e16: "x".into(),
        maybe_e8: even.then_some(Colour::Red),
        low_fixed: *b"xy",
        maybe_d: (!even).then_some(-150),
        maybe_uuid: even.then_some((0x0011_2233_4455_6677, 0x8899_aabb_ccdd_eeff)),
        v6_map: [(7, Ipv6Addr::LOCALHOST)].into(),
        tuple: (vec![1, 2], (None, true)),
        variants: vec![Either::Number(1), Either::Text("t".into())],
    }
}

#[tokio::test]
async fn rarer_types_and_their_nestings_arrive_unchanged() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    database.exec(RARER).await.unwrap();
    let mut writer = writer::<Rarer>(&database, "rarer");
    writer.start().await.unwrap();
    deliver(&mut writer, (0..100).map(rarer)).await.unwrap();
    let wrong = query(
        &database.client(),
        "SELECT countIf(NOT (toString(d256) = '-1234.567' AND toString(time) = '-01:01:01' AND toString(time64) = '01:01:01.500'
            AND toString(nanos) = '2017-07-14 11:40:00.000000001' AND (id % 2 = 1) = (maybe_at IS NULL)
            AND ifNull(toUnixTimestamp(maybe_at), 86400) = 86400 AND ring = [(0, 0.5), (1, 1.5)] AND polygon = [[(0, 0)], []]
            AND toString(holes) = '[1,NULL]' AND toString(nested) = '{\\'a\\':[NULL,-1],\\'b\\':[]}' AND toInt16(e16) = -300
            AND (id % 2 = 1) = (maybe_e8 IS NULL) AND ifNull(toString(maybe_e8), 'Red') = 'Red' AND low_fixed = 'xy'
            AND (id % 2 = 0) = (maybe_d IS NULL) AND ifNull(toString(maybe_d), '-1.5') = '-1.5'
            AND ifNull(toString(maybe_uuid), '00112233-4455-6677-8899-aabbccddeeff') = '00112233-4455-6677-8899-aabbccddeeff'
            AND toString(v6_map[7]) = '::1' AND toString(tuple) = '([1,2],(NULL,true))' AND toString(variants) = '[1,\\'t\\']'))
            FROM rarer",
    )
    .await;
    assert_eq!(
        wrong,
        "0",
        "{}",
        query(&database.client(), "SELECT * FROM rarer LIMIT 2 FORMAT Vertical").await
    );
    assert_eq!(database.count("rarer").await.unwrap(), 100);
}
