//! Measures what a JSON row costs beside a struct: CPU nanoseconds and allocations for a row, from
//! the payload to RowBinary. The payloads are those of the benchmark's work W2.
//!
//! Both ways take turns in each round, and the ratio is the median of the rounds' ratios. The
//! server only describes the table.
//!
//! `cargo run --release -p kmr-sinks --features clickhouse --example json_cost --
//! http://127.0.0.1:8123 my_database`
#![allow(clippy::print_stdout, reason = "a program that prints figures")]

use std::borrow::Cow;
use std::time::Duration;

use kmr_core::{BoxError, OwnedRecord, Record, Reducer, Rows};
use kmr_sinks::clickhouse::client::Client;
use kmr_sinks::clickhouse::{ClickHouseWriter, JsonOptions, JsonRow, Row};
use serde::{Deserialize, Serialize};

/// Distinct payloads: more than the caches hold.
const PAYLOADS: u64 = 50_000;
/// Rows in a chunk, as a partition's map task sends them.
const CHUNK: usize = 1_024;
const ROUNDS: usize = 31;

#[derive(Row, Serialize)]
#[clickhouse(crate = "kmr_sinks::clickhouse")]
struct Metric {
    org_id: u32,
    project_id: u32,
    name: String,
    timestamp: u32,
    value: f64,
    retention_days: u16,
}

#[derive(Deserialize)]
struct Message<'a> {
    org_id: u32,
    project_id: u32,
    name: String,
    timestamp: u32,
    value: f64,
    #[serde(borrow)]
    tags: Tags<'a>,
    retention_days: u16,
}

#[derive(Deserialize)]
struct Tags<'a> {
    #[serde(borrow)]
    environment: Cow<'a, str>,
    #[serde(borrow)]
    release: Cow<'a, str>,
}

/// The benchmark's own map of W2.
fn metric(record: &Record<'_>) -> Result<Metric, BoxError> {
    let text = std::str::from_utf8(record.payload().unwrap_or_default())?;
    let message: Message<'_> = serde_json::from_str(text)?;
    std::hint::black_box((&message.tags.environment, &message.tags.release));
    Ok(Metric {
        org_id: message.org_id,
        project_id: message.project_id,
        name: message.name,
        timestamp: message.timestamp,
        value: message.value,
        retention_days: message.retention_days,
    })
}

fn json(record: &Record<'_>) -> Result<JsonRow, BoxError> {
    Ok(JsonRow::from_record(record)?)
}

const NAMES: [&str; 4] = [
    "d:transactions/duration@ms",
    "s:transactions/user@none",
    "c:sessions/session@none",
    "d:custom/queue.depth@none",
];

/// The fields of a payload of 200 bytes.
fn fields(number: u64) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(number);
    let mut fields = vec![
        format!("\"org_id\":{}", random.u32(1..5_000)),
        format!("\"project_id\":{}", random.u32(1..60_000)),
        format!("\"name\":\"{}\"", NAMES[random.usize(..NAMES.len())]),
        format!("\"timestamp\":{}", 1_700_000_000 + number / 1_000),
        format!("\"value\":{}.{}", random.u32(..10_000), random.u32(..100)),
        format!(
            "\"tags\":{{\"environment\":\"production\",\"release\":\"{}.{}\"}}",
            random.u32(1..30),
            random.u32(..20)
        ),
        format!("\"retention_days\":{}", if random.bool() { 30 } else { 90 }),
    ];
    let size: usize = fields.iter().map(|field| field.len() + 1).sum();
    let pad: String = (0..200_usize.saturating_sub(size + 9)).map(|_| random.alphanumeric()).collect();
    fields.push(format!("\"pad\":\"{pad}\""));
    fields
}

fn records(shuffled: bool) -> Vec<OwnedRecord> {
    let record = |number: u64| {
        let mut fields = fields(number);
        if shuffled {
            fastrand::Rng::with_seed(number).shuffle(&mut fields);
        }
        OwnedRecord::new("w2", 0, number as i64).with_payload(format!("{{{}}}", fields.join(",")))
    };
    (0..PAYLOADS).map(record).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(database)) = (arguments.next(), arguments.next()) else {
        return Err("arguments: URL of the server, name of a database that the example may change".into());
    };
    let client = Client::default().with_url(&url).with_database(&database);
    let columns = "org_id UInt32, project_id UInt32, name String, timestamp DateTime, value Float64, retention_days UInt16";
    for (table, more) in [("cost_w2", ""), ("cost_w2_tags", ", environment String, `tags.release` String")] {
        client.query(&format!("DROP TABLE IF EXISTS {table}")).execute().await?;
        let ddl = format!("CREATE TABLE {table} ({columns}{more}) ENGINE = MergeTree ORDER BY timestamp");
        client.query(&ddl).execute().await?;
    }
    let mut structs = ClickHouseWriter::<Metric>::new(&url, "cost_w2").database(&database);
    structs.start().await?;
    let mut objects = ClickHouseWriter::<JsonRow>::new(&url, "cost_w2").database(&database);
    objects.start().await?;
    let options = JsonOptions::new().path("environment", ["tags", "environment"]);
    let mut nested = ClickHouseWriter::<JsonRow>::new(&url, "cost_w2_tags").database(&database).json(options);
    nested.start().await?;
    for (name, shuffled) in [("keys in order", false), ("random order", true)] {
        let records = records(shuffled);
        compare(name, &records, &structs, &objects)?;
        compare(&format!("{name}, tags as 2 columns"), &records, &structs, &nested)?;
    }
    Ok(())
}

/// Encodes the records in both ways, in turns, and prints the figures.
fn compare(
    name: &str,
    records: &[OwnedRecord],
    structs: &ClickHouseWriter<Metric>,
    objects: &ClickHouseWriter<JsonRow>,
) -> Result<(), BoxError> {
    let (mut ratios, mut struct_times, mut object_times) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (struct_time, object_time);
        if round % 2 == 0 {
            struct_time = time(records, &structs.new_rows(), metric)?;
            object_time = time(records, &objects.new_rows(), json)?;
        } else {
            object_time = time(records, &objects.new_rows(), json)?;
            struct_time = time(records, &structs.new_rows(), metric)?;
        }
        ratios.push(object_time / struct_time);
        struct_times.push(struct_time);
        object_times.push(object_time);
    }
    let struct_allocations = allocations(records, &structs.new_rows(), metric)?;
    let object_allocations = allocations(records, &objects.new_rows(), json)?;
    println!(
        "{name}: struct {:.0} ns and {struct_allocations:.3} allocations a row; JSON row {:.0} ns and \
         {object_allocations:.3}; ratio {:.3}",
        median(&mut struct_times),
        median(&mut object_times),
        median(&mut ratios),
    );
    Ok(())
}

/// CPU nanoseconds for a row.
fn time<R: Rows>(
    records: &[OwnedRecord],
    container: &R,
    map: fn(&Record<'_>) -> Result<R::Item, BoxError>,
) -> Result<f64, BoxError> {
    let before = cpu();
    encode(records, container, map)?;
    Ok((cpu() - before).as_nanos() as f64 / records.len() as f64)
}

fn encode<R: Rows>(
    records: &[OwnedRecord],
    container: &R,
    map: fn(&Record<'_>) -> Result<R::Item, BoxError>,
) -> Result<(), BoxError> {
    for chunk in records.chunks(CHUNK) {
        let mut rows = container.new_empty();
        for record in chunk {
            let record = record.as_record();
            rows.push_from(map(&record)?, &record)?;
        }
        std::hint::black_box(rows);
    }
    Ok(())
}

/// Allocations for a row, with those of the container's growth: about 0.02.
fn allocations<R: Rows>(
    records: &[OwnedRecord],
    container: &R,
    map: fn(&Record<'_>) -> Result<R::Item, BoxError>,
) -> Result<f64, BoxError> {
    let mut result = Ok(());
    let all = allocation_counter::measure(|| result = encode(records, container, map));
    result?;
    Ok(all.count_total as f64 / records.len() as f64)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// CPU time of this thread so far, from the kernel's scheduler statistics.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0))
}
