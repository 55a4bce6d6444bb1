//! A proxy between kmr and ClickHouse cuts requests, drops responses, hangs, and answers by itself.
//!
//! No row is lost, and a table with a deduplication window has no duplicates.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use integration_tests::{ClickHouse, Deadline, Kafka, Message, log_line, test_name, unique};
use kmr_core::{DeadLetter, Record, RetryPolicy, Strategy};
use kmr_sinks::MemoryWriter;
use kmr_sinks::clickhouse::{ClickHouseWriter, Compression, RecordColumns, Row};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::in_process::{consumer, run};

#[derive(Row, Serialize)]
struct Line {
    text: String,
}

fn text(record: &Record<'_>) -> Result<Line, std::str::Utf8Error> {
    Ok(Line { text: std::str::from_utf8(record.payload().unwrap_or_default())?.to_owned() })
}

/// What the proxy does to a connection.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// Ends the request within its body.
    CutRequest,
    /// Forwards the request and drops the response.
    DropResponse,
    /// Forwards the request, drops the response, and keeps the connection open.
    Hang,
    /// Forwards nothing and answers by itself.
    OwnResponse,
}

const FAULTS: [Fault; 8] = [
    Fault::None,
    Fault::CutRequest,
    Fault::None,
    Fault::DropResponse,
    Fault::OwnResponse,
    Fault::None,
    Fault::Hang,
    Fault::DropResponse,
];

/// Least size of an insert in bytes. Shorter requests are forwarded: the description of the table,
/// and the comparison of settings at the start.
const INSERT: usize = 4_000;

/// Starts a proxy for `target` (`host:port`). Returns its address, and a counter of broken
/// connections.
async fn proxy(target: String) -> Result<(String, Arc<AtomicU64>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let broken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&broken);
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((client, _)) = listener.accept().await {
            let fault = FAULTS[number % FAULTS.len()];
            number += 1;
            let (target, count) = (target.clone(), Arc::clone(&count));
            // Errors of broken connections are intended.
            tokio::spawn(async move { serve(client, &target, fault, &count).await.ok() });
        }
    });
    Ok((address, broken))
}

async fn serve(mut client: TcpStream, target: &str, fault: Fault, broken: &AtomicU64) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    let mut start = Vec::new();
    let mut limited = (&mut client).take(INSERT as u64);
    let head = limited.read_to_end(&mut start);
    tokio::time::timeout(Duration::from_millis(200), head).await.ok();
    let fault = if start.len() < INSERT { Fault::None } else { fault };
    if !matches!(fault, Fault::None) {
        broken.fetch_add(1, Ordering::Relaxed);
    }
    match fault {
        Fault::None => {
            server.write_all(&closing(&start)).await?;
            copy_bidirectional(&mut client, &mut server).await?;
        }
        Fault::CutRequest => server.write_all(&start).await?,
        Fault::DropResponse | Fault::Hang => {
            server.write_all(&start).await?;
            let (mut from_client, _to_client) = client.split();
            let (mut response, mut to_server) = server.split();
            tokio::select! {
                sent = copy(&mut from_client, &mut to_server) => drop(sent?),
                received = first_byte(&mut response) => received?,
            }
            if matches!(fault, Fault::Hang) {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        }
        Fault::OwnResponse => {
            let response =
                b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 7\r\nConnection: close\r\n\r\nproxied";
            client.write_all(response).await?;
        }
    }
    Ok(())
}

/// The start of a request that asks the server to close the connection after it, so that each
/// request has a fault of its own.
fn closing(start: &[u8]) -> Vec<u8> {
    let end = start.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    [&start[..end], &b"connection: close\r\n"[..], &start[end..]].concat()
}

async fn first_byte(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
    from.read(&mut [0]).await.map(drop)
}

#[tokio::test]
async fn a_proxy_that_breaks_most_inserts_leaves_each_row_once() -> Result<()> {
    const RECORDS: u64 = 20_000;
    let topic = Kafka::shared().await?.create_topic(test_name!(), 2).await?;
    let message = |n: u64| Message::new(format!("record number {n}")).partition((n % 2) as i32);
    topic.produce((0..RECORDS).map(message)).await?;
    let server = ClickHouse::shared().await?;
    let database = server.database(test_name!()).await?;
    let ddl = "CREATE TABLE t (partition UInt32, offset UInt64, text String) ENGINE = MergeTree ORDER BY (partition, offset)
               SETTINGS non_replicated_deduplication_window = 1000";
    database.exec(ddl).await?;
    let (address, broken) = proxy(server.url().trim_start_matches("http://").to_owned()).await?;
    let writer = ClickHouseWriter::<Line>::new(format!("http://{address}"), "t")
        .database(database.name())
        .record_columns(RecordColumns::new().partition("partition").offset("offset"))
        .compression(Compression::None)
        .max_rows(1_000)
        .response_timeout(Duration::from_secs(1))
        .retry(RetryPolicy::default().with_max_backoff(Duration::from_millis(200)));
    let group = unique(test_name!());
    let errors = MemoryWriter::<DeadLetter>::new();
    let dead_letters = errors.records();
    let mut running =
        run(consumer(&topic, &group, Strategy::new().map(text).reduce(writer).reduce_err(errors)))?;
    running.all_committed(&topic, &group, Deadline::seconds(90)).await?;
    running.stop(Deadline::seconds(30)).await?;

    let broken = broken.load(Ordering::Relaxed);
    let (rows, distinct) =
        (database.count("t").await?, database.number("SELECT uniqExact(partition, offset) FROM t").await?);
    log_line(format_args!("{broken} broken inserts: {RECORDS} produced, {rows} rows, {distinct} distinct"));
    assert!(broken >= 10, "the proxy broke only {broken} inserts");
    assert_eq!(
        (rows, distinct, dead_letters.len()),
        (RECORDS, RECORDS, 0),
        "each row is stored once, without dead letters"
    );
    Ok(())
}
