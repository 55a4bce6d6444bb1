//! Measures a run from inside its process, and prints the result as its last line.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::clock::process_cpu;

/// The last line of a contender's standard output.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Records processed in the whole run.
    pub(crate) records: u64,
    /// Records per second over the middle 80 % of them.
    pub(crate) rate: f64,
    /// User and system seconds per million records.
    pub(crate) cpu_per_million: f64,
    /// Peak resident memory of the process, in bytes.
    pub(crate) peak_bytes: u64,
}

/// Records when one tenth and when nine tenths of the records are done.
#[derive(Debug)]
pub(crate) struct Meter {
    total: u64,
    done: u64,
    cpu_before: Duration,
    first: Option<Point>,
    last: Option<Point>,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    at: Instant,
    done: u64,
}

impl Meter {
    /// For `total` records. `cpu_before` is processor time that does not count: zero if the start
    /// belongs to the work.
    pub(crate) fn new(total: u64, cpu_before: Duration) -> Self {
        Self { total, done: 0, cpu_before, first: None, last: None }
    }

    /// Reports the number of records done so far. With a sink these are acknowledged rows.
    pub(crate) fn reached(&mut self, done: u64) {
        self.done = done;
        let point = Point { at: Instant::now(), done };
        if self.first.is_none() && done * 10 >= self.total {
            self.first = Some(point);
        }
        if self.last.is_none() && done * 10 >= self.total * 9 {
            self.last = Some(point);
        }
    }

    /// Whether all are done.
    pub(crate) fn is_done(&self) -> bool {
        self.done >= self.total
    }

    /// Prints the measurement. Call it at the end of the process.
    ///
    /// # Errors
    ///
    /// When records are missing, or were reported in too few steps for a rate.
    pub(crate) fn print(&self) -> Result<()> {
        let line = serde_json::to_string(&self.finish()?)?;
        std::io::Write::write_all(&mut std::io::stdout(), format!("{line}\n").as_bytes())?;
        Ok(())
    }

    fn finish(&self) -> Result<Measured> {
        ensure!(self.done == self.total, "{} of {} records are done", self.done, self.total);
        let (first, last) = self.first.zip(self.last).context("no rate: no progress was reported")?;
        ensure!(last.done > first.done, "no rate: too few records");
        let cpu = process_cpu().saturating_sub(self.cpu_before).as_secs_f64();
        Ok(Measured {
            records: self.done,
            rate: (last.done - first.done) as f64 / (last.at - first.at).as_secs_f64(),
            cpu_per_million: cpu * 1e6 / self.total as f64,
            peak_bytes: peak_bytes()?,
        })
    }
}

/// Peak resident memory of this process, in bytes.
pub(crate) fn peak_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}
