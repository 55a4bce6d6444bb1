//! Metrics that reducers record, in kmr's sinks and in user code.

use std::collections::btree_map::Entry;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::descriptors::Descriptor;
use super::families::Families;
use super::series::{Counters, Histograms, Labels, StageFamily, durations, register};

/// A metric of a reducer: see [`StageMetrics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    descriptor: Descriptor,
    is_counter: bool,
}

impl Metric {
    /// A counter. By Prometheus' conventions its name ends with `_total`, after its unit if it has
    /// one: `my_sink_rows_total`, `my_sink_sent_bytes_total`. `kmr_` is the prefix of kmr's own
    /// metrics: do not use it for yours.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { descriptor: Descriptor { name, help }, is_counter: true }
    }

    /// A histogram of durations, from a millisecond to ten minutes. Its name ends with `_seconds`.
    pub const fn durations(name: &'static str, help: &'static str) -> Self {
        Self { descriptor: Descriptor { name, help }, is_counter: false }
    }
}

/// Records the metrics of one reduce stage: see [`Reducer::metrics`](crate::Reducer::metrics).
///
/// Each series has the label `stage` and the given ones. It starts with the first call, and exists
/// as long as the consumer. So the values of labels must come from a small set: outcomes, codes,
/// tables, and never offsets, keys or texts of errors. Call it per batch, not per row. A call takes
/// less than a microsecond and does not block. The default records nothing.
///
/// The first call with a name decides its type and its help text. A later call with the other type
/// records nothing. The given labels must not include `stage`.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use kmr_core::{Metric, StageMetrics};
///
/// const SENT: Metric = Metric::counter("my_sink_requests_total", "Requests, by status");
/// const TOOK: Metric = Metric::durations("my_sink_request_duration_seconds", "Time of a request");
///
/// fn sent(metrics: &StageMetrics, status: u16, took: Duration) {
///     metrics.add(SENT, &[("status", &status.to_string())], 1);
///     metrics.observe(TOOK, &[], took);
/// }
/// # sent(&StageMetrics::default(), 200, Duration::from_secs(1));
/// ```
#[derive(Clone, Debug, Default)]
pub struct StageMetrics(Option<(Arc<str>, Arc<Families>)>);

impl StageMetrics {
    pub(super) fn new(stage: &str, families: Option<Arc<Families>>) -> Self {
        Self(families.map(|families| (stage.into(), families)))
    }

    /// Adds `amount` to a counter.
    pub fn add(&self, metric: Metric, labels: &[(&'static str, &str)], amount: u64) {
        self.with(metric, labels, |family, labels| {
            if let StageFamily::Counters(counters) = family {
                counters.get_or_create(labels).inc_by(amount);
            }
        });
    }

    /// Adds a duration to a histogram.
    pub fn observe(&self, metric: Metric, labels: &[(&'static str, &str)], took: Duration) {
        self.with(metric, labels, |family, labels| {
            if let StageFamily::Durations(histograms) = family {
                histograms.get_or_create(labels).observe(took.as_secs_f64());
            }
        });
    }

    fn with(
        &self,
        metric: Metric,
        labels: &[(&'static str, &str)],
        record: impl FnOnce(&StageFamily, &Labels),
    ) {
        let Some((stage, families)) = &self.0 else { return };
        let values = labels.iter().map(|(name, value)| (*name, Arc::from(*value)));
        let labels = std::iter::once(("stage", stage.clone())).chain(values).collect();
        record(&families.of_stage(metric), &labels);
    }
}

impl Families {
    fn of_stage(&self, metric: Metric) -> StageFamily {
        let mut of_stages = self.of_stages.lock().unwrap_or_else(PoisonError::into_inner);
        match of_stages.entry(metric.descriptor.name) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => {
                let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
                let registry = &mut registry;
                new.insert(if metric.is_counter {
                    StageFamily::Counters(register(registry, metric.descriptor, Counters::default()))
                } else {
                    let histograms = Histograms::new_with_constructor(durations);
                    StageFamily::Durations(register(registry, metric.descriptor, histograms))
                })
                .clone()
            }
        }
    }
}
