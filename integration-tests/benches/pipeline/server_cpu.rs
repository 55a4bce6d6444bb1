//! Reads the processor time of ClickHouse.
//!
//! The server's own counters leave out threads that it has not started itself.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// The name of the server's process starts with it, as Linux cuts it.
const NAME: &str = "clickhouse-";
/// The unit of processor time in `/proc`.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time of all ClickHouse servers on this machine since their start. Others than
/// that of the benchmark should be idle.
///
/// # Errors
/// No server runs on this machine, or it is hidden.
pub(crate) fn server_cpu() -> Result<Duration> {
    let processes = std::fs::read_dir("/proc")?.filter_map(Result::ok);
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let times: Vec<u64> = stats.filter_map(|stat| ticks(&stat)).collect();
    ensure!(!times.is_empty(), "no process of this machine is called {NAME}…");
    Ok(Duration::from_millis(times.iter().sum::<u64>() * 1_000 / TICKS_PER_SECOND))
}

/// `PID (NAME) STATE …`: fields 14 and 15 of the line, if it is a server.
fn ticks(stat: &str) -> Option<u64> {
    let (name, fields) = stat.split_once(" (")?.1.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    name.starts_with(NAME).then_some(())?;
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

/// Seconds per million records since `before`.
///
/// # Errors
/// As for [`server_cpu`].
pub(crate) fn per_million(before: Duration, records: u64) -> Result<f64> {
    let used = server_cpu().context("the server has ended")?.saturating_sub(before);
    Ok(used.as_secs_f64() * 1e6 / records as f64)
}
