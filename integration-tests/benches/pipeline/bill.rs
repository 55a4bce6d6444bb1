//! What a run costs besides its own process: processor time of the broker and of ClickHouse, and
//! the bytes that it exchanges with them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration_tests::Database;

/// The name of the server's process starts with it, as Linux cuts it.
const CLICKHOUSE: &str = "clickhouse-";
/// The class that a broker's Java process runs.
const BROKER: &str = "kafka.Kafka";
/// All bytes between a contender and the servers pass the loopback interface once.
const LOOPBACK: &str = "/sys/class/net/lo/statistics/rx_bytes";
/// The unit of processor time in `/proc`.
const TICKS_PER_SECOND: u64 = 100;

/// What a run costs besides its own process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bill {
    /// Processor time of the broker per million records, in seconds.
    pub(crate) broker: f64,
    /// The same of ClickHouse, until the rows are merged.
    pub(crate) server: f64,
    /// Bytes per record between the contender and Kafka, in both directions.
    pub(crate) kafka_bytes: f64,
    /// The same of ClickHouse.
    pub(crate) clickhouse_bytes: f64,
}

/// The counters of both servers at one time. Other servers on this machine should be idle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readings {
    broker: Duration,
    server: Duration,
    loopback: u64,
    clickhouse: u64,
}

impl Readings {
    /// Reads the counters.
    ///
    /// # Errors
    /// A server does not run on this machine, or it is hidden.
    pub(crate) async fn take(database: &Database) -> Result<Self> {
        let events = "SELECT sum(value) FROM system.events \
                      WHERE event IN ('NetworkReceiveBytes', 'NetworkSendBytes')";
        Ok(Self {
            // The server's own counters leave out threads that it has not started itself.
            server: processor_time("ClickHouse", |name, _| name.starts_with(CLICKHOUSE))?,
            broker: processor_time("Kafka", |name, process| name == "java" && runs(process, BROKER))?,
            clickhouse: database.number(events).await?,
            loopback: std::fs::read_to_string(LOOPBACK).context(LOOPBACK)?.trim().parse()?,
        })
    }

    /// What `records` records have cost since.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    pub(crate) async fn bill(self, database: &Database, records: u64) -> Result<Bill> {
        let now = Self::take(database).await.context("a server has ended")?;
        let records = records as f64;
        let seconds = |now: Duration, before| now.saturating_sub(before).as_secs_f64() * 1e6 / records;
        let clickhouse = now.clickhouse.saturating_sub(self.clickhouse);
        let others = now.loopback.saturating_sub(self.loopback).saturating_sub(clickhouse);
        Ok(Bill {
            broker: seconds(now.broker, self.broker),
            server: seconds(now.server, self.server),
            kafka_bytes: others as f64 / records,
            clickhouse_bytes: clickhouse as f64 / records,
        })
    }
}

/// User and system time of all `wanted` processes since their start. `wanted` gets the name of a
/// process and its folder in `/proc`.
fn processor_time(server: &str, wanted: impl Fn(&str, &Path) -> bool) -> Result<Duration> {
    let processes = std::fs::read_dir("/proc")?.filter_map(Result::ok).map(|entry| entry.path());
    let times: Vec<u64> = processes
        .filter_map(|process| {
            let stat = std::fs::read_to_string(process.join("stat")).ok()?;
            let (name, ticks) = ticks(&stat)?;
            wanted(name, &process).then_some(ticks)
        })
        .collect();
    ensure!(!times.is_empty(), "no process of {server} on this machine: its processor time cannot be read");
    Ok(Duration::from_millis(times.iter().sum::<u64>() * 1_000 / TICKS_PER_SECOND))
}

/// `PID (NAME) STATE …`: the name, and the sum of the fields 14 and 15.
fn ticks(stat: &str) -> Option<(&str, u64)> {
    let (name, fields) = stat.split_once(" (")?.1.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Some((name, times.next()?.ok()? + times.next()?.ok()?))
}

/// Whether a process has this argument.
fn runs(process: &Path, argument: &str) -> bool {
    let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).any(|part| part == argument.as_bytes())
}
