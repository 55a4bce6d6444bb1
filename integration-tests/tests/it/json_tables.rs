//! JSON rows and the table: columns that are altered or added while a writer runs, DEFAULTs that
//! the server computes, and arrays of a `Nested`.

use integration_tests::{ClickHouse, test_name};
use kmr_core::{Reducer, error_chain};

use crate::json_rows::{content, insert, tables, writer};

#[tokio::test]
async fn an_altered_column_is_converted_also_with_computed_defaults() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    tables(&database, "id UInt32, twice UInt32 DEFAULT id * 2").await.unwrap();
    let mut writer = writer(&database, "ours");
    writer.start().await.unwrap();
    insert(&mut writer, &[r#"{"id":1}"#]).await.unwrap();
    database.exec("ALTER TABLE ours MODIFY COLUMN twice UInt64 DEFAULT id * 2").await.unwrap();
    database.exec("ALTER TABLE ours MODIFY COLUMN id UInt64").await.unwrap();
    database.exec("ALTER TABLE ours ADD COLUMN added String DEFAULT 'a'").await.unwrap();
    insert(&mut writer, &[r#"{"id":2,"added":"ignored"}"#, r#"{"id":3,"twice":1}"#]).await.unwrap();
    let stored = content(&database, "ours", "groupArray((id, twice, added))").await;
    let mut rows: Vec<_> = stored.trim_matches(['[', ']']).split("),(").collect();
    rows.sort_unstable();
    assert_eq!(rows.len(), 3);
    assert_eq!(database.number("SELECT sum(twice) FROM ours").await.unwrap(), 2 + 4 + 1);
    database.exec("ALTER TABLE ours DROP COLUMN twice").await.unwrap();
    let error = insert(&mut writer, &[r#"{"id":4}"#]).await.unwrap_err();
    assert!(error.contains("column `twice` is gone"), "{error}");
}

#[tokio::test]
async fn an_alter_that_loses_values_stops_the_writer_also_with_computed_defaults() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    for (columns, change, row, expected) in [
        ("id UInt32, n UInt32 DEFAULT id", "id UInt16", r#"{"id":70000}"#, "was UInt32 at the start"),
        ("id UInt8, at DateTime64(3) DEFAULT now(), n UInt8", "at DateTime", r#"{"id":1}"#, "`at` was"),
        ("id UInt8, x Nullable(UInt8), n UInt8 DEFAULT id", "x UInt8 DEFAULT 0", r#"{"id":1}"#, "`x` was"),
        ("id UInt8, n UInt8 DEFAULT id", "n Nullable(UInt8) DEFAULT id", r#"{"id":1}"#, "`n` was"),
    ] {
        tables(&database, columns).await.unwrap();
        let mut writer = writer(&database, "ours");
        writer.start().await.unwrap();
        insert(&mut writer, &[r#"{"id":1}"#]).await.unwrap();
        database.exec(&format!("ALTER TABLE ours MODIFY COLUMN {change}")).await.unwrap();
        let error = insert(&mut writer, &[row]).await.unwrap_err();
        assert!(error.contains(expected) && error.contains("restart"), "{change}: {error}");
        assert_eq!(content(&database, "ours", "count()").await, "1", "{change}");
    }
}

#[tokio::test]
async fn a_setting_that_a_type_needs_for_computed_defaults_is_named_at_the_start() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    let setting = "allow_suspicious_low_cardinality_types";
    let ddl =
        "CREATE TABLE t (a LowCardinality(UInt8), at DateTime DEFAULT now()) ENGINE = MergeTree ORDER BY a";
    database.client().with_setting(setting, "1").query(ddl).execute().await.unwrap();
    let text = error_chain(&*writer(&database, "t").start().await.unwrap_err());
    assert!(text.contains(setting) && text.contains("set it with .setting()"), "{text}");
    let mut allowed = writer(&database, "t").setting(setting, "1");
    allowed.start().await.unwrap();
    insert(&mut allowed, &[r#"{"a":7}"#]).await.unwrap();
    assert_eq!(content(&database, "t", "a").await, "7");
}

#[tokio::test]
async fn an_array_added_to_a_nested_is_filled_with_as_many_defaults() {
    let database = ClickHouse::shared().await.unwrap().database(test_name!()).await.unwrap();
    tables(&database, "id UInt8, `n.a` Array(UInt32), `n.b` Array(String)").await.unwrap();
    let added = "ALTER TABLE ours ADD COLUMN `n.c` Array(UInt8), ADD COLUMN `n.d.e` Array(Nullable(String))";
    database.exec(added).await.unwrap();
    let mut writer = writer(&database, "ours");
    writer.start().await.unwrap();
    let documents = [
        r#"{"id":1,"n":{"a":[1,2],"b":["x","y"]}}"#,
        r#"{"n.b":["z"],"n.a":[3],"id":2,"n.c":[9]}"#,
        r#"{"id":3}"#,
    ];
    insert(&mut writer, &documents).await.unwrap();
    let stored = content(&database, "ours", "groupArray((id, `n.a`, `n.b`, `n.c`, `n.d.e`))").await;
    assert_eq!(stored, "[(1,[1,2],['x','y'],[0,0],[NULL,NULL]),(2,[3],['z'],[9],[NULL]),(3,[],[],[],[])]");
}
