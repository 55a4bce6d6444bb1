//! Measures the cost of a million rows, step by step: encoding, LZ4, insert. It prints the CPU
//! seconds of this process for a million rows, and those of the `clickhouse` crate's own insert
//! (plain, in the same batches).
//!
//! `cargo run --release -p kmr-sinks --features clickhouse --example clickhouse_cost --
//! http://127.0.0.1:8123 my_database`
#![allow(clippy::print_stdout, reason = "a program that prints figures")]

use std::time::{Duration, Instant};

use kmr_core::{Attempt, BoxError, Chunk, Reducer, Rows};
use kmr_sinks::clickhouse::client::Client;
use kmr_sinks::clickhouse::{ClickHouseWriter, Compression, Row};
use serde::Serialize;

const ROWS: u64 = 2_000_000;
const BATCH: u64 = 32_768;
/// Rows in a chunk, as a partition's map task sends them.
const CHUNK: u64 = 1_024;

#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
struct Numbers {
    partition: u32,
    offset: u64,
    timestamp: u32,
}

#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
struct Mixed {
    partition: u32,
    offset: u64,
    timestamp: u32,
    host: String,
    value: f64,
    tag: Option<u16>,
}

/// Columns whose values have a range.
#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
struct Ranged {
    partition: u32,
    offset: u64,
    timestamp: u32,
    at: i64,
    day: i32,
    price: i64,
    rate: i32,
}

fn numbers(n: u64) -> Numbers {
    Numbers { partition: (n % 8) as u32, offset: n / 8, timestamp: 1_700_000_000 + (n / 1000) as u32 }
}

fn mixed(n: u64) -> Mixed {
    Mixed {
        partition: (n % 8) as u32,
        offset: n / 8,
        timestamp: 1_700_000_000 + (n / 1000) as u32,
        host: format!("host-{:04}.example.org", n.wrapping_mul(2_654_435_761) % 5000),
        value: n as f64 / 3.0,
        tag: n.is_multiple_of(3).then_some(n as u16),
    }
}

fn ranged(n: u64) -> Ranged {
    Ranged {
        partition: (n % 8) as u32,
        offset: n / 8,
        timestamp: 1_700_000_000 + (n / 1000) as u32,
        at: 1_700_000_000_000 + n as i64,
        day: 19_000 + (n % 1000) as i32,
        price: n as i64,
        rate: (n % 1000) as i32,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(database)) = (arguments.next(), arguments.next()) else {
        return Err("arguments: URL of the server, name of a database that the example may change".into());
    };
    let client = Client::default().with_url(&url).with_database(&database);
    let columns = "partition UInt32, offset UInt64, timestamp DateTime";
    for (table, more) in [
        ("cost_numbers", ""),
        ("cost_mixed", ", host String, value Float64, tag Nullable(UInt16)"),
        ("cost_ranged", ", at DateTime64(3), day Date32, price Decimal(18, 2), rate Decimal(9, 4)"),
    ] {
        client.query(&format!("DROP TABLE IF EXISTS {table}")).execute().await?;
        let ddl =
            format!("CREATE TABLE {table} ({columns}{more}) ENGINE = MergeTree ORDER BY (partition, offset)");
        client.query(&ddl).execute().await?;
    }
    crate_insert("numbers", &client, "cost_numbers", numbers).await?;
    crate_insert("mixed", &client, "cost_mixed", mixed).await?;
    for compression in [Compression::None, Compression::Lz4] {
        let writer = |table| ClickHouseWriter::new(&url, table).database(&database).compression(compression);
        measure("numbers", writer("cost_numbers"), numbers, compression).await?;
        let writer = |table| ClickHouseWriter::new(&url, table).database(&database).compression(compression);
        measure("mixed", writer("cost_mixed"), mixed, compression).await?;
        let writer = |table| ClickHouseWriter::new(&url, table).database(&database).compression(compression);
        measure("ranged", writer("cost_ranged"), ranged, compression).await?;
    }
    Ok(())
}

async fn measure<R: Row + Serialize + Send + 'static>(
    name: &str,
    mut writer: ClickHouseWriter<R>,
    make: fn(u64) -> R,
    compression: Compression,
) -> Result<(), BoxError> {
    writer.start().await?;
    let container = writer.new_rows();
    let (mut making, mut encoding, mut delivering) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let (mut bytes, mut sent) = (0, 0);
    let wall = Instant::now();
    for batch in 0..ROWS / BATCH {
        let first = batch * BATCH;
        let rows: Vec<R> = timed(&mut making, || (first..first + BATCH).map(make).collect());
        timed(&mut encoding, || -> Result<(), BoxError> {
            let mut chunk = container.new_empty();
            for row in rows {
                chunk.push(row)?;
                if chunk.len() as u64 == CHUNK {
                    writer.accept(Chunk::new(
                        std::mem::replace(&mut chunk, container.new_empty()),
                        Vec::new(),
                    ))?;
                }
            }
            Ok(())
        })?;
        let before = cpu();
        let receipt = writer.freeze()?.deliver(Attempt::new(1)).await.map_err(|error| error.into_source())?;
        delivering += cpu() - before;
        bytes += receipt.output.bytes;
        sent += receipt.output.sent_bytes;
    }
    let per_million = |time: Duration| time.as_secs_f64() * 1e6 / (ROWS / BATCH * BATCH) as f64;
    println!(
        "{name:8} {compression:?}: making {:.3}, encoding {:.3}, {} {:.3} CPU-s per million rows; {bytes} bytes, \
         {sent} sent; wall {:.2?}",
        per_million(making),
        per_million(encoding),
        if compression == Compression::None { "insert" } else { "LZ4 and insert" },
        per_million(delivering),
        wall.elapsed()
    );
    Ok(())
}

async fn crate_insert<R>(name: &str, client: &Client, table: &str, make: fn(u64) -> R) -> Result<(), BoxError>
where
    R: for<'a> Row<Value<'a> = R> + Serialize,
{
    let client = client.clone().with_setting("async_insert", "0");
    let (mut making, mut inserting) = (Duration::ZERO, Duration::ZERO);
    for batch in 0..ROWS / BATCH {
        let first = batch * BATCH;
        let rows: Vec<R> = timed(&mut making, || (first..first + BATCH).map(make).collect());
        let before = cpu();
        let mut insert = client.insert::<R>(table).await?;
        for row in &rows {
            insert.write(row).await?;
        }
        insert.end().await?;
        inserting += cpu() - before;
    }
    let inserting = inserting.as_secs_f64() * 1e6 / (ROWS / BATCH * BATCH) as f64;
    println!("{name:8} clickhouse crate, plain: encoding and insert {inserting:.3} CPU-s per million rows");
    Ok(())
}

fn timed<T>(sum: &mut Duration, work: impl FnOnce() -> T) -> T {
    let before = cpu();
    let result = work();
    *sum += cpu() - before;
    result
}

/// CPU time of this process so far, from the kernel's scheduler statistics.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0))
}
