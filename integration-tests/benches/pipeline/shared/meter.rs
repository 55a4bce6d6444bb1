//! How a run is measured from inside its process, and the line that it prints at its end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::clock::process_cpu;

/// The last line of a contender's standard output.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Records whose work was done, over the whole run.
    pub(crate) records: u64,
    /// Records a second over the middle 80 % of them.
    pub(crate) rate: f64,
    /// User and system seconds for a million records.
    pub(crate) cpu_per_million: f64,
    /// The most resident memory of the process, in bytes.
    pub(crate) peak_bytes: u64,
}

/// Notes when a tenth of the records was done, and when nine tenths were.
#[derive(Debug)]
pub(crate) struct Meter {
    total: u64,
    done: u64,
    cpu_before: Duration,
    first: Option<Mark>,
    last: Option<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    done: u64,
}

impl Meter {
    /// For so many records. `cpu_before` is what the process has used by now and does not count: nothing, where its start
    /// belongs to the work.
    pub(crate) fn new(total: u64, cpu_before: Duration) -> Self {
        Self { total, done: 0, cpu_before, first: None, last: None }
    }

    /// Tells how many records are done by now: rows that the sink has acknowledged, where there is one.
    pub(crate) fn reached(&mut self, done: u64) {
        self.done = done;
        let mark = Mark { at: Instant::now(), done };
        if self.first.is_none() && done * 10 >= self.total {
            self.first = Some(mark);
        }
        if self.last.is_none() && done * 10 >= self.total * 9 {
            self.last = Some(mark);
        }
    }

    /// Whether all are done.
    pub(crate) fn is_done(&self) -> bool {
        self.done >= self.total
    }

    /// Prints the measurement, as the last thing that a process does.
    ///
    /// # Errors
    ///
    /// When records are missing, or were reported in too few steps to tell a rate.
    pub(crate) fn print(&self) -> Result<()> {
        let line = serde_json::to_string(&self.finish()?)?;
        std::io::Write::write_all(&mut std::io::stdout(), format!("{line}\n").as_bytes())?;
        Ok(())
    }

    fn finish(&self) -> Result<Measured> {
        ensure!(self.done == self.total, "{} of {} records are done", self.done, self.total);
        let (first, last) = self.first.zip(self.last).context("no progress was reported")?;
        ensure!(last.done > first.done, "too few records for a rate");
        let cpu = process_cpu().saturating_sub(self.cpu_before).as_secs_f64();
        Ok(Measured {
            records: self.done,
            rate: (last.done - first.done) as f64 / (last.at - first.at).as_secs_f64(),
            cpu_per_million: cpu * 1e6 / self.total as f64,
            peak_bytes: peak_bytes()?,
        })
    }
}

/// The most resident memory that this process has had, in bytes.
pub(crate) fn peak_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}
