//! A proxy between kmr and ClickHouse. It has nginx's default limits, 8 KiB for a request line and
//! 1 MiB for a body; or a list of the URL parameters that it forwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use integration_tests::{ClickHouse, Deadline, Kafka, Message, log_line, test_name, unique};
use kmr_core::{DeadLetter, Record, Reducer, Strategy, error_chain};
use kmr_sinks::MemoryWriter;
use kmr_sinks::clickhouse::{ClickHouseWriter, Compression, RecordColumns, Row};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::in_process::{consumer, run};

const LONGEST_LINE: usize = 8 << 10;
const LARGEST_BODY: usize = 1 << 20;

#[derive(Row, Serialize)]
struct Line {
    text: String,
}

fn text(record: &Record<'_>) -> Result<Line, std::str::Utf8Error> {
    Ok(Line { text: std::str::from_utf8(record.payload().unwrap_or_default())?.to_owned() })
}

/// Requests that the proxy rejected.
#[derive(Default)]
struct Rejected {
    lines: AtomicU64,
    bodies: AtomicU64,
    /// The only URL parameters that it forwards, if it has such a list.
    forwarded: Option<&'static [&'static str]>,
}

impl Rejected {
    /// The head with the URL parameters that the proxy forwards.
    fn forwarded(&self, head: &str) -> String {
        let Some((allowed, (before, rest))) = self.forwarded.zip(head.split_once('?')) else {
            return head.to_owned();
        };
        let Some((parameters, after)) = rest.split_once(' ') else { return head.to_owned() };
        let is_allowed = |pair: &&str| pair.split_once('=').is_some_and(|(name, _)| allowed.contains(&name));
        let kept: Vec<_> = parameters.split('&').filter(is_allowed).collect();
        format!("{before}?{} {after}", kept.join("&"))
    }
}

/// Starts a proxy for `target` (`host:port`). Returns its address.
async fn proxy(target: String, rejected: Arc<Rejected>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (target, rejected) = (target.clone(), Arc::clone(&rejected));
            // The client closes connections as it likes.
            tokio::spawn(async move { serve(client, &target, &rejected).await.ok() });
        }
    });
    Ok(address)
}

/// Serves one request. A rejection is sent before the body is read, as by nginx.
async fn serve(mut client: TcpStream, target: &str, rejected: &Rejected) -> Result<()> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        anyhow::ensure!(client.read_buf(&mut bytes).await? > 0, "the client closed");
    };
    let head = String::from_utf8(bytes[..end].to_vec())?;
    let line = head.lines().next().context("no request line")?;
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let (status, count) = if line.len() > LONGEST_LINE {
        ("414 Request-URI Too Large", &rejected.lines)
    } else if length.unwrap_or(0) > LARGEST_BODY {
        ("413 Request Entity Too Large", &rejected.bodies)
    } else {
        let mut server = TcpStream::connect(target).await?;
        let head = rejected.forwarded(&head);
        server.write_all(format!("{head}\r\nconnection: close").as_bytes()).await?;
        server.write_all(&bytes[end..]).await?;
        copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    };
    count.fetch_add(1, Ordering::Relaxed);
    let page = format!("<html><h1>{status}</h1></html>");
    let response = format!(
        "HTTP/1.1 {status}\r\nServer: nginx\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    );
    client.write_all(response.as_bytes()).await?;
    Ok(())
}

#[tokio::test]
async fn long_statements_and_large_batches_pass_a_proxy_with_the_defaults_of_nginx() -> Result<()> {
    const RECORDS: u64 = 5_000;
    let topic = Kafka::shared().await?.create_topic(test_name!(), 1).await?;
    topic.produce((0..RECORDS).map(|n| Message::new(format!("{n:01000}")))).await?;
    let server = ClickHouse::shared().await?;
    let database = server.database(test_name!()).await?;
    // Each of these characters is six bytes in a URL.
    let column = |kind: &str| format!("{kind}_{}", "ä".repeat(900));
    let ddl = format!(
        "CREATE TABLE t (`{}` UInt32, `{}` UInt64, text String) ENGINE = MergeTree ORDER BY tuple()
         SETTINGS non_replicated_deduplication_window = 1000",
        column("partition"),
        column("offset")
    );
    database.exec(&ddl).await?;
    for compression in [Compression::None, Compression::Lz4] {
        let rejected = Arc::new(Rejected::default());
        let target = server.url().trim_start_matches("http://").to_owned();
        let address = proxy(target, Arc::clone(&rejected)).await?;
        let writer = ClickHouseWriter::<Line>::new(format!("http://{address}"), "t")
            .database(database.name())
            .record_columns(RecordColumns::new().partition(column("partition")).offset(column("offset")))
            .compression(compression);
        let group = unique(test_name!());
        let errors = MemoryWriter::<DeadLetter>::new();
        let dead_letters = errors.records();
        let mut running =
            run(consumer(&topic, &group, Strategy::new().map(text).reduce(writer).reduce_err(errors)))?;
        running.all_committed(&topic, &group, Deadline::seconds(60)).await?;
        running.stop(Deadline::seconds(30)).await?;

        let (lines, bodies) =
            (rejected.lines.load(Ordering::Relaxed), rejected.bodies.load(Ordering::Relaxed));
        let distinct = format!("SELECT uniqExact(`{}`) FROM t", column("offset"));
        let (rows, distinct) = (database.count("t").await?, database.number(&distinct).await?);
        log_line(format_args!(
            "{compression:?}: {bodies} bodies and {lines} request lines rejected, {rows} rows"
        ));
        assert_eq!((lines, rows, distinct, dead_letters.len()), (0, RECORDS, RECORDS, 0));
        if compression == Compression::None {
            assert!(bodies > 0, "no batch was above the limit");
        }
        database.exec("TRUNCATE TABLE t").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_proxy_that_forwards_the_token_alone_is_found_at_the_start() -> Result<()> {
    let server = ClickHouse::shared().await?;
    let database = server.database(test_name!()).await?;
    database.exec("CREATE TABLE t (text String) ENGINE = MergeTree ORDER BY text").await?;
    let allowed = Rejected { forwarded: Some(&["insert_deduplication_token"]), ..Rejected::default() };
    let target = server.url().trim_start_matches("http://").to_owned();
    let address = proxy(target, Arc::new(allowed)).await?;
    let mut writer =
        ClickHouseWriter::<Line>::new(format!("http://{address}"), "t").database(database.name());
    let Err(error) = writer.start().await else { anyhow::bail!("the start accepts the proxy") };
    let text = error_chain(&*error);
    log_line(format_args!("{text}"));
    for name in ["distributed_foreground_insert", "async_insert", "min_insert_block_size_bytes"] {
        anyhow::ensure!(text.contains(&format!("{name}=")), "{name}: {text}");
    }
    anyhow::ensure!(!text.contains("insert_deduplication_token=") && text.contains("proxy"), "{text}");
    Ok(())
}
