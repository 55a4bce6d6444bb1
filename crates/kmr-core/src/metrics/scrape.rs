//! A scrape: reads the running consumer and encodes all metrics as text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, Weak};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::{prometheus_text, text};
use tokio::time::timeout;

use super::channel::{StageChannel, StageReading};
use super::families::Families;
use super::live::{Live, Snapshot};
use super::partition::{PartitionReading, PartitionState};
use super::recorder::Recorder;
use crate::event::Event;
use crate::record::TopicPartition;

/// Longest wait for the committer's report. It comes at once, unless the runtime is stuck. Then
/// the values of the last report are shown.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// The text format of a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricsFormat {
    /// The text format of Prometheus, version 0.0.4, which every collector reads.
    #[default]
    Prometheus,
    /// OpenMetrics, version 1.0.0, for a request whose `Accept` header names
    /// `application/openmetrics-text`.
    OpenMetrics,
}

impl MetricsFormat {
    /// The value of the header `Content-Type` of a response.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Recorder {
    /// All metrics as text. Empty if nothing is recorded. `live` is called after the committer has
    /// reported what is finished.
    pub(crate) async fn scrape(&self, format: MetricsFormat, live: impl FnOnce() -> Live) -> String {
        let Some(on) = &self.0 else { return String::new() };
        let (partitions, _) = on.read_partitions().await;
        let breaker_tripped = on.breaker_tripped.load(Ordering::Relaxed);
        on.encode(format, Snapshot { live: live(), partitions, breaker_tripped }).unwrap_or_default()
    }

    /// What a status shows of partitions, stages and events. `None`: nothing is recorded.
    pub(crate) async fn read(&self) -> Option<Readings> {
        let on = self.0.as_ref()?;
        let (partitions, responsive) = on.read_partitions().await;
        let channels = on.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let stages = channels.iter().rev().map(StageChannel::read).collect();
        Some(Readings { partitions, stages, events: on.events.all(), responsive })
    }
}

/// What a status shows of what the tasks record.
#[derive(Debug)]
pub(crate) struct Readings {
    /// In order.
    pub(crate) partitions: Vec<PartitionReading>,
    /// In the order of the records, `reduce_err` last.
    pub(crate) stages: Vec<StageReading>,
    /// The newest first.
    pub(crate) events: Vec<Event>,
    /// Whether the committer answered in time.
    pub(crate) responsive: bool,
}

impl Readings {
    /// Without metrics, only the health of partitions is known.
    pub(crate) fn only_health<'p>(partitions: impl Iterator<Item = &'p TopicPartition>) -> Self {
        let unknown = |partition: &TopicPartition| PartitionReading {
            partition: partition.clone(),
            position: None,
            committed: None,
            log_end: None,
            lag: None,
            lag_seconds: None,
            unmapped_bytes: 0,
        };
        let partitions = partitions.map(unknown).collect();
        Self { partitions, stages: Vec::new(), events: Vec::new(), responsive: true }
    }
}

impl Families {
    /// Reads all assigned partitions after the committer has reported what is finished. Also
    /// returns whether it answered in time.
    async fn read_partitions(&self) -> (Vec<PartitionReading>, bool) {
        let report =
            self.reporter.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|report| report());
        let report = match report {
            Some(report) => timeout(REPORT_TIMEOUT, report).await.ok(),
            None => Some(Vec::new()),
        };
        let partitions = self.assigned(|state| {
            report
                .iter()
                .flatten()
                .filter(|progress| progress.assignment == state.assignment)
                .for_each(|p| state.progress(p));
            state.read(SystemTime::now())
        });
        (partitions, report.is_some())
    }

    /// Reads all assigned partitions, in order.
    fn assigned(&self, read: impl Fn(&PartitionState) -> PartitionReading) -> Vec<PartitionReading> {
        let partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let states = partitions.iter().filter_map(Weak::upgrade);
        // While a repositioned partition changes its assignment, it has two. The newer one is later
        // in the list, so the map keeps it.
        let newest: BTreeMap<TopicPartition, _> =
            states.map(|state| (state.partition.clone(), state)).collect();
        newest.values().map(|state| read(state)).collect()
    }

    fn encode(&self, format: MetricsFormat, snapshot: Snapshot) -> Result<String, fmt::Error> {
        // Scrapes at the same time encode one after the other, each with its own snapshot.
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.live.set(snapshot);
        let mut encoded = String::new();
        match format {
            MetricsFormat::Prometheus => prometheus_text::encode(&mut encoded, &registry)?,
            MetricsFormat::OpenMetrics => text::encode(&mut encoded, &registry)?,
        }
        Ok(encoded)
    }
}
