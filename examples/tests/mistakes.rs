//! Mistakes that kmr reports when a consumer starts or runs, as a beginner makes them.
//!
//! The guide lists each message (docs/guide/src/mistakes.md). `shows` checks that the list and the
//! message agree. The mistakes that the compiler finds are cases of `tests/ui`, here and in
//! kmr-core.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which may fail in any way")]

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use kmr_core::testing::{Driver, EmbeddedCluster, NewRecord};
use kmr_core::{
    BoxError, ClientConfig, Consumer, ConsumerBuilder, IntoPipeline, Pipeline, Record, Reducer, error_chain,
    processing_strategy,
};
use kmr_sinks::clickhouse::{self, Row, TableColumn, check_row};
use kmr_sinks::{ClickHouseWriter, KafkaWriter, MemoryWriter};

/// The page of the guide.
const PAGE: &str = include_str!("../../docs/guide/src/mistakes.md");

/// Asserts that a message contains `phrase`, and that the guide lists it.
#[track_caller]
fn shows(phrase: &str, message: &str) {
    assert!(message.contains(phrase), "{phrase:?} is not in {message:?}");
    assert!(listed("## While it starts and runs").contains(&phrase), "the guide does not list {phrase:?}");
}

/// The messages of a section of the guide: the code in the first column of its table.
fn listed(section: &str) -> Vec<&'static str> {
    let (_, text) = PAGE.split_once(section).unwrap_or_else(|| panic!("no section {section}"));
    let text = text.split_once("\n## ").map_or(text, |(text, _)| text);
    let code = |line: &'static str| {
        let line = line.strip_prefix("| `")?;
        match line.strip_prefix("` ") {
            Some(line) => line.split_once(" ``"),
            None => line.split_once('`'),
        }
    };
    text.lines().filter_map(code).map(|(phrase, _)| phrase).collect()
}

#[derive(Row, serde::Serialize)]
struct Order {
    id: u64,
    cents: u32,
}

fn text(record: &Record<'_>) -> Result<String, BoxError> {
    Ok(std::str::from_utf8(record.payload().ok_or("a tombstone")?)?.to_owned())
}

fn strategy() -> Pipeline {
    processing_strategy!({ map => text, reduce => MemoryWriter::new(), reduce_err => MemoryWriter::new() })
}

fn config() -> ClientConfig {
    ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1").set("group.id", "orders")
}

fn builder() -> ConsumerBuilder<Pipeline> {
    Consumer::builder().topics(["orders"]).config(config()).strategy(strategy())
}

/// The message of a consumer that cannot be built.
fn denied(builder: ConsumerBuilder<Pipeline>) -> String {
    builder.build().err().unwrap().to_string()
}

#[test]
fn settings_that_cannot_work() {
    shows("no topics; name at least one", &denied(builder().topics(Vec::<String>::new())));
    let without_group = ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1");
    shows("group.id is not set", &denied(builder().config(without_group)));
    shows("bootstrap.servers is not set", &denied(builder().config(ClientConfig::new())));
    let wrong = config().set("auto.offset.reset", "newest");
    shows("it has to be earliest, latest or error", &denied(builder().config(wrong)));
    shows("raise drain_timeout", &denied(builder().drain_timeout(Duration::from_secs(5))));
    shows(
        "which is not below max.poll.interval.ms",
        &denied(builder().drain_timeout(Duration::from_secs(600))),
    );
    let two = processing_strategy!({
        map => text,
        reduce => MemoryWriter::new(),
        map => |_| Ok::<_, Infallible>(1),
        reduce => MemoryWriter::new(),
    });
    shows(
        "exactly_once: the strategy has more than one reduce",
        &denied(builder().strategy(two).exactly_once()),
    );
    let dead_letters = KafkaWriter::dead_letters(config(), "orders");
    let again =
        processing_strategy!({ map => text, reduce => MemoryWriter::new(), reduce_err => dead_letters });
    shows("dead letters would fail and be written again without end", &denied(builder().strategy(again)));
}

#[tokio::test]
async fn an_unknown_setting() {
    let wrong = config().set("auto.ofset.reset", "latest");
    let error = builder().config(wrong).build().unwrap().run().await.err().unwrap();
    shows("No such configuration property", &error.to_string());
    shows("did you mean auto.offset.reset?", &error.to_string());
}

#[tokio::test]
async fn a_topic_that_does_not_exist() {
    let cluster = EmbeddedCluster::start().unwrap();
    cluster.create_topic("orders", 1).unwrap();
    let misspelt = builder().config(cluster.client_config("orders")).topics(["oders"]);
    let error = misspelt.build().unwrap().run().await.err().unwrap();
    shows("does not exist (or the user may not see it)", &error.to_string());
}

/// The message with which a strategy ends for one record, and the dead letters before that.
fn run(strategy: impl IntoPipeline) -> String {
    let mut driver = Driver::new(strategy);
    driver.pipe(NewRecord::new(0).with_payload("350"));
    driver.advance(Duration::from_secs(5));
    driver.finish().err().map(|error| error_chain(&error)).unwrap_or_default()
}

#[test]
fn stages_that_fail() {
    let fails = |_: &Record<'_>| Err::<String, _>("no order");
    let message = run(processing_strategy!({ map => fails, reduce => MemoryWriter::new() }));
    shows("map 1 failed and the strategy has no reduce_err", &message);

    let failed = MemoryWriter::new();
    let dead_letters = failed.records();
    let panics = |_: &Record<'_>| Ok::<_, Infallible>([0_u8; 2][std::hint::black_box(2)]);
    run(processing_strategy!({ map => panics, reduce => MemoryWriter::new(), reduce_err => failed }));
    shows("failed at map 1: panicked", &dead_letters.lock()[0].to_string());

    let blocks = |_: &Record<'_>| {
        Ok::<_, Infallible>(tokio::runtime::Handle::current().block_on(std::future::ready(1)))
    };
    let failed = MemoryWriter::new();
    let message =
        run(processing_strategy!({ map => blocks, reduce => MemoryWriter::new(), reduce_err => failed }));
    shows("the stage makes a blocking call", &message);
}

#[tokio::test]
async fn a_driver_in_an_async_test() {
    let panic = std::panic::catch_unwind(|| drop(Driver::new(strategy()))).unwrap_err();
    shows("a Driver is synchronous", panic.downcast_ref::<&str>().unwrap());
}

#[test]
fn rows_that_do_not_fit_the_table() {
    let check = |columns: &[(&str, &str)]| {
        let columns: Vec<_> = columns.iter().map(|(name, ty)| TableColumn::new(*name, *ty, "")).collect();
        let checked = check_row("orders", &columns, Order { id: 7, cents: 350 });
        checked.err().map(|error| error_chain(&*error)).unwrap_or_default()
    };
    assert_eq!(check(&[("cents", "UInt32"), ("id", "UInt64")]), "", "the order of fields does not matter");
    shows("it has no column `cents`", &check(&[("id", "UInt64"), ("cent", "UInt32")]));
    shows("has no DEFAULT and", &check(&[("id", "UInt64"), ("cents", "UInt32"), ("day", "Date")]));
    shows("change the field of Order, or alter the column", &check(&[("id", "UInt64"), ("cents", "String")]));
}

/// A server that has no table, on a free port. It answers until the test ends.
fn server_without_tables() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&connection).lines().map_while(Result::ok);
            while lines.next().is_some_and(|line| !line.is_empty()) {}
            let body = "Code: 60. DB::Exception: Table default.`shop.orders` does not exist. (UNKNOWN_TABLE)";
            let head = "HTTP/1.1 404 Not Found\r\nX-ClickHouse-Exception-Code: 60\r\nConnection: close";
            let _ = write!(&connection, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    url
}

#[tokio::test]
async fn the_name_of_a_table_with_its_database() {
    let mut writer = ClickHouseWriter::<Order>::new(server_without_tables(), "shop.orders");
    let message = error_chain(&*writer.start().await.err().unwrap());
    shows("a name that contains a dot is not split into database and table", &message);
}

/// Nothing in the guide is without a test.
#[test]
fn every_message_of_the_guide_is_expected_by_a_test() {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = ["crates/kmr-core/tests/ui/fail", "examples/tests/ui/fail"];
    let mut expected = String::new();
    for entry in folders.iter().flat_map(|folder| std::fs::read_dir(packages.join(folder)).unwrap()) {
        let case = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        expected.extend(case.lines().filter_map(|line| Some(line.split_once("//~")?.1)));
    }
    let (by_compiler, by_run) = (listed("## The compiler"), listed("## While it starts and runs"));
    assert!(by_compiler.len() + by_run.len() >= 30, "{} and {}", by_compiler.len(), by_run.len());
    for phrase in by_compiler {
        assert!(expected.contains(phrase), "no case of tests/ui expects {phrase:?}");
    }
    for phrase in by_run {
        assert!(include_str!("mistakes.rs").contains(phrase), "no test shows {phrase:?}");
    }
}
