//! The last minutes of throughput and lag, so that a page that has just been opened shows them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use kmr_core::{ConsumerHandle, ConsumerState, Status};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval};

use crate::json;

/// Interval of samples.
const INTERVAL: Duration = Duration::from_secs(2);
/// Samples that are kept: ten minutes.
const KEPT: usize = 300;

/// A sample of the consumer's counters.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Milliseconds since 1970.
    time: u64,
    records: u64,
    rows: u64,
    lag: i64,
}

/// The last samples of one consumer.
#[derive(Debug, Default)]
pub(crate) struct History {
    samples: Mutex<VecDeque<Sample>>,
}

impl History {
    /// Starts to sample on Tokio's runtime. The task ends when the history is dropped, or the
    /// consumer has ended. Without a runtime there are no samples.
    pub(crate) fn start(handle: ConsumerHandle) -> Arc<Self> {
        let history = Arc::<Self>::default();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(sample(Arc::downgrade(&history), handle));
        }
        history
    }

    fn add(&self, status: &Status) {
        let sample = Sample {
            time: json::millis(SystemTime::now()),
            records: status.totals.records,
            rows: json::rows(status),
            lag: json::lag(status),
        };
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// A row for each sample: time, records and rows since the consumer was built, lag.
    pub(crate) fn json(&self) -> Value {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().map(|s| json!([s.time, s.records, s.rows, s.lag])).collect()
    }
}

async fn sample(history: Weak<History>, handle: ConsumerHandle) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let status = handle.status().await;
        let Some(history) = history.upgrade() else { return };
        history.add(&status);
        if status.state == ConsumerState::Ended {
            return;
        }
    }
}
