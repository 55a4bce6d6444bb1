//! Compares W3, W2's records without a struct, with W2, with `kmr run FILE`, and with lines of JSON
//! that ClickHouse parses: the processor time of consumer and server, and the rate.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{Deadline, Process, Signal, Topic, log_line, program, unique};

use super::Line;
use crate::bill::Readings;
use crate::contenders::Contender;
use crate::figures::order;
use crate::options::Options;
use crate::servers::{Servers, table_of};
use crate::shared::job::{BATCH_AGE, BATCH_ROWS, Work};

/// Timeout of a run that is observed from outside.
const LIMIT: Duration = Duration::from_secs(300);
/// Interval between two counts of the table's rows.
const POLL: Duration = Duration::from_millis(50);

/// A way of the records into the table.
#[derive(Clone, Copy)]
enum Way {
    Contender(Contender),
    /// `kmr run FILE`
    File,
}

const WAYS: [(&str, Way); 4] = [
    ("W2", Way::Contender(Contender::Kmr)),
    ("W3", Way::Contender(Contender::KmrJson)),
    ("W3 from a file", Way::File),
    ("JSONEachRow", Way::Contender(Contender::KmrForward)),
];

/// One run.
#[derive(Clone, Copy)]
struct Run {
    /// Processor time per million records, in seconds.
    consumer: f64,
    /// The same of the server, until the rows are merged.
    server: f64,
    /// Records per second over the middle 80 % of them.
    rate: f64,
}

pub(super) async fn run(options: &Options, servers: &Servers) -> Result<Vec<Line>> {
    let records = options.records();
    let topic = servers.topic("bench_json", options.partitions, records).await?;
    let mut runs: [Vec<Run>; WAYS.len()] = Default::default();
    for round in 1..=options.rounds() {
        for at in order(round, WAYS.len()) {
            let (name, way) = WAYS[at];
            let run = once(options, servers, way, &topic).await.context(name)?;
            log_line(format_args!(
                "json, round {round}: {name:14} {:.3} CPU-s/M, server {:.3} CPU-s/M, {:.0} records/s",
                run.consumer, run.server, run.rate
            ));
            runs[at].push(run);
        }
    }
    topic.delete().await?;
    let of = |figure: fn(&Run) -> f64| -> [Vec<f64>; WAYS.len()] {
        runs.each_ref().map(|runs| runs.iter().map(figure).collect())
    };
    let (consumer, sum, rate) =
        (of(|run| run.consumer), of(|run| run.consumer + run.server), of(|run| run.rate));
    let mut lines = Vec::new();
    for (at, (name, _)) in WAYS.iter().enumerate() {
        lines.push(Line::median(format!("{name}: consumer's CPU-s per million"), &consumer[at], ""));
        lines.push(Line::median(format!("{name}: with the server's"), &sum[at], ""));
        lines.push(Line::median(format!("{name}: rate"), &rate[at], "records/s"));
    }
    let [_, w3, _, each_row] = &sum;
    lines.push(Line::ratio("consumer: W3 to W2", &consumer[1], &consumer[0]).at_most(1.0));
    lines.push(Line::ratio("sum: W3 to JSONEachRow", w3, each_row).at_most(1.0));
    Ok(lines)
}

/// Stores the records in an empty table, and merges its rows.
async fn once(options: &Options, servers: &Servers, way: Way, topic: &Topic) -> Result<Run> {
    let (table, records) = (table_of(Work::W2), options.records());
    if let Way::Contender(contender) = way {
        let job = servers.job(Work::W2, topic.name(), records, options.lz4());
        let (measured, bill) =
            servers.run_billed(servers.command(contender, &job)?, &job, Some(records)).await?;
        return Ok(Run { consumer: measured.cpu_per_million, server: bill.server, rate: measured.rate });
    }
    servers.empty_tables().await?;
    let before = Readings::take(&servers.database).await?;
    let (consumer, rate) = from_file(options, servers, topic).await?;
    servers.database.exec(&format!("OPTIMIZE TABLE {table} FINAL")).await?;
    let bill = before.bill(&servers.database, records).await?;
    Ok(Run { consumer, server: bill.server, rate })
}

/// Processor time per million records, and the rate.
async fn from_file(options: &Options, servers: &Servers, topic: &Topic) -> Result<(f64, f64)> {
    let kmr = program("kmr", &["--release", "--package", "kmr-cli", "--bin", "kmr"]).await?;
    let file = std::env::temp_dir().join(format!("{}.toml", unique("bench")));
    let compression = if options.lz4() { "lz4" } else { "none" };
    let pipeline = format!(
        "[bench.source]\nbrokers = \"{}\"\ntopics = \"{}\"\ngroup = \"{}\"\n\n\
         [bench.clickhouse]\nurls = \"{}\"\ndatabase = \"{}\"\ntable = \"{}\"\ncompression = \"{compression}\"\n\n\
         [bench.batch]\nmax_rows = {BATCH_ROWS}\nmax_age = \"{}s\"\n",
        servers.kafka.bootstrap(),
        topic.name(),
        unique("bench"),
        servers.database.server().url(),
        servers.database.name(),
        table_of(Work::W2),
        BATCH_AGE.as_secs(),
    );
    std::fs::write(&file, pipeline)?;
    let mut command = Command::new(kmr);
    command.arg("run").arg(&file);
    let mut process = Process::spawn(command)?;
    let observed = observe(servers, options.records()).await;
    let cpu = process.cpu_time();
    let status = process.end(Signal::Terminate, Deadline::seconds(30)).await;
    std::fs::remove_file(&file)?;
    let rate = observed.with_context(|| process.stderr())?;
    ensure!(status?.success(), "{}", process.stderr());
    Ok((cpu?.as_secs_f64() * 1e6 / options.records() as f64, rate))
}

/// Waits until the table has all rows. Returns the rate over the middle 80 % of them.
async fn observe(servers: &Servers, records: u64) -> Result<f64> {
    let (started, mut points) = (Instant::now(), Vec::new());
    loop {
        let rows = servers.database.count(table_of(Work::W2)).await?;
        points.push((Instant::now(), rows));
        if rows >= records {
            ensure!(rows == records, "the table has {rows} rows of {records} records");
            break;
        }
        ensure!(started.elapsed() < LIMIT, "the table has {rows} rows of {records} records after {LIMIT:?}");
        tokio::time::sleep(POLL).await;
    }
    let at = |tenths: u64| points.iter().find(|(_, rows)| rows * 10 >= records * tenths).copied();
    let ((from, first), (to, last)) = at(1).zip(at(9)).context("no progress was observed")?;
    ensure!(last > first, "no rate: too few inserts were observed");
    Ok((last - first) as f64 / (to - from).as_secs_f64())
}
