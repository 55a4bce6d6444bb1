//! A file that is as young as the consumer is live, for containers without HTTP.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kmr_core::{ConsumerHandle, ConsumerState};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use crate::error::StatusError;
use crate::{json, probes, telemetry};

/// Shortest period.
const SHORTEST: Duration = Duration::from_millis(100);

/// Writes a file once in a period while `/livez` would answer 200, and removes it when the consumer
/// has ended. A probe checks how old the file is:
///
/// ```sh
/// test -n "$(find /run/kmr/live -newermt '-30 seconds')"
/// ```
///
/// The file holds the time as seconds since 1970. It gets no younger if Tokio's runtime is stuck,
/// or the task that commits does not answer. A sink that is unavailable does not change it.
#[derive(Clone, Debug)]
#[must_use = "a liveness file is not written until it is spawned"]
pub struct LivenessFile {
    path: PathBuf,
    period: Duration,
}

impl LivenessFile {
    /// A file at `path`, written once in `period`, which is at least 100 ms. A probe should allow
    /// three periods.
    pub fn new(path: impl Into<PathBuf>, period: Duration) -> Self {
        Self { path: path.into(), period: period.max(SHORTEST) }
    }

    /// Writes the file, and again and again as a task of Tokio's runtime, until the consumer has
    /// ended.
    ///
    /// # Errors
    /// [`StatusError::LivenessFile`]: the first write failed. Later failures are logged, and tried
    /// again.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the file and starts no task.
    pub async fn spawn(self, handle: ConsumerHandle) -> Result<JoinHandle<()>, StatusError> {
        write(&self.path).await?;
        Ok(tokio::spawn(self.keep(handle)))
    }

    async fn keep(self, handle: ConsumerHandle) {
        let mut ticks = interval(self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let status = handle.status().await;
            if status.state == ConsumerState::Ended {
                let path = self.path;
                // If it cannot be removed, it gets too old.
                let _ = spawn_blocking(move || std::fs::remove_file(path)).await;
                return;
            }
            if probes::is_live(&status)
                && let Err(error) = write(&self.path).await
            {
                telemetry::liveness_file_failed(&self.path, &error);
            }
        }
    }
}

/// A file system can block for long, so a thread of its own writes.
async fn write(path: &Path) -> Result<(), StatusError> {
    let file = path.to_owned();
    let text = format!("{}\n", json::millis(SystemTime::now()) / 1_000);
    let written = spawn_blocking(move || std::fs::write(file, text)).await;
    let failed = |source| StatusError::LivenessFile { path: path.to_owned(), source };
    written.map_err(|stopped| failed(std::io::Error::other(stopped)))?.map_err(failed)
}
