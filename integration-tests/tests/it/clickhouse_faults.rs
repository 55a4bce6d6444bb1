//! Real servers with a proxy in between that cuts, swallows, delays and answers for itself: nothing is lost, and nothing is double in a
//! table that knows tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use integration_tests::{ClickHouse, Deadline, Kafka, Message, say, test_name, unique};
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

/// What the proxy does with a connection.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// The request ends within its body.
    CutRequest,
    /// The server gets and serves all, the client sees nothing of the answer.
    SwallowAnswer,
    /// The same, but the connection stays open.
    Silence,
    /// The server gets nothing, and the proxy answers.
    OwnAnswer,
}

const FAULTS: [Fault; 8] = [
    Fault::None,
    Fault::CutRequest,
    Fault::None,
    Fault::SwallowAnswer,
    Fault::OwnAnswer,
    Fault::None,
    Fault::Silence,
    Fault::SwallowAnswer,
];

/// Bytes that a request takes at least: the description of the table is shorter, and goes through.
const INSERT: usize = 2_000;

/// A proxy in front of `target` (`host:port`). Returns its address, and a counter of the connections that it spoilt.
async fn proxy(target: String) -> Result<(String, Arc<AtomicU64>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let spoilt = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&spoilt);
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((near, _)) = listener.accept().await {
            let fault = FAULTS[number % FAULTS.len()];
            number += 1;
            let (target, count) = (target.clone(), Arc::clone(&count));
            // A connection that breaks is what this is about.
            tokio::spawn(async move { serve(near, &target, fault, &count).await.ok() });
        }
    });
    Ok((address, spoilt))
}

async fn serve(mut near: TcpStream, target: &str, fault: Fault, spoilt: &AtomicU64) -> std::io::Result<()> {
    let mut far = TcpStream::connect(target).await?;
    let mut start = Vec::new();
    let wanted = INSERT as u64;
    tokio::time::timeout(Duration::from_millis(200), (&mut near).take(wanted).read_to_end(&mut start))
        .await
        .ok();
    let fault = if start.len() < INSERT { Fault::None } else { fault };
    if !matches!(fault, Fault::None) {
        spoilt.fetch_add(1, Ordering::Relaxed);
    }
    match fault {
        Fault::None => {
            far.write_all(&start).await?;
            copy_bidirectional(&mut near, &mut far).await?;
        }
        Fault::CutRequest => far.write_all(&start).await?,
        Fault::SwallowAnswer | Fault::Silence => {
            far.write_all(&start).await?;
            let (mut from_client, _to_client) = near.split();
            let (mut answer, mut to_server) = far.split();
            tokio::select! {
                sent = copy(&mut from_client, &mut to_server) => drop(sent?),
                served = first_byte(&mut answer) => served?,
            }
            if matches!(fault, Fault::Silence) {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        }
        Fault::OwnAnswer => {
            let answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 7\r\nConnection: close\r\n\r\nproxied";
            near.write_all(answer).await?;
        }
    }
    Ok(())
}

async fn first_byte(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
    from.read(&mut [0]).await.map(drop)
}

#[tokio::test]
async fn a_proxy_that_spoils_most_inserts_loses_nothing_and_doubles_nothing() -> Result<()> {
    const RECORDS: u64 = 20_000;
    let topic = Kafka::shared().await?.create_topic(test_name!(), 2).await?;
    let message = |n: u64| Message::new(format!("record number {n}")).partition((n % 2) as i32);
    topic.produce((0..RECORDS).map(message)).await?;
    let server = ClickHouse::shared().await?;
    let database = server.database(test_name!()).await?;
    let ddl = "CREATE TABLE t (partition UInt32, offset UInt64, text String) ENGINE = MergeTree ORDER BY (partition, offset)
               SETTINGS non_replicated_deduplication_window = 1000";
    database.exec(ddl).await?;
    let (address, spoilt) = proxy(server.url().trim_start_matches("http://").to_owned()).await?;
    let writer = ClickHouseWriter::<Line>::new(format!("http://{address}"), "t")
        .database(database.name())
        .record_columns(RecordColumns::new().partition("partition").offset("offset"))
        .compression(Compression::None)
        .max_rows(1_000)
        .response_timeout(Duration::from_secs(1))
        .retry(RetryPolicy::default().with_max_backoff(Duration::from_millis(200)));
    let group = unique(test_name!());
    let errors = MemoryWriter::<DeadLetter>::new();
    let letters = errors.records();
    let mut running =
        run(consumer(&topic, &group, Strategy::new().map(text).reduce(writer).reduce_err(errors)))?;
    let all = async || Ok(topic.lag(&group).await? == 0);
    running.until(Deadline::seconds(90), "all is committed", all).await?;
    running.stop(Deadline::seconds(30)).await?;

    let spoilt = spoilt.load(Ordering::Relaxed);
    let (rows, distinct) =
        (database.count("t").await?, database.number("SELECT uniqExact(partition, offset) FROM t").await?);
    say(format_args!("{spoilt} inserts spoilt: {RECORDS} produced, {rows} rows, {distinct} distinct"));
    assert!(spoilt >= 10, "only {spoilt} inserts were spoilt");
    assert_eq!((rows, distinct, letters.len()), (RECORDS, RECORDS, 0));
    Ok(())
}
