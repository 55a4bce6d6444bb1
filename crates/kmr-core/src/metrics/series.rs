//! The types of series, and how they are registered.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::descriptors::Descriptor;

/// Labels with their values.
pub(super) type Labels = Vec<(&'static str, Arc<str>)>;
pub(super) type Counters = Family<Labels, Counter>;
pub(super) type Histograms = Family<Labels, Histogram, fn() -> Histogram>;
pub(super) type Seconds = Counter<f64, AtomicU64>;

/// A metric of all stages that record it.
#[derive(Clone, Debug)]
pub(super) enum StageFamily {
    Counters(Counters),
    Durations(Histograms),
}

/// Registers a metric under its name.
pub(super) fn register<M: Metric + Clone>(registry: &mut Registry, descriptor: Descriptor, metric: M) -> M {
    match descriptor.parts() {
        (name, Some(unit)) => {
            registry.register_with_unit(name, descriptor.help, unit, metric.clone());
        }
        (name, None) => registry.register(name, descriptor.help, metric.clone()),
    }
    metric
}

/// From a millisecond to ten minutes: a quick insert, and a rebalance with a long drain. It has
/// the default bounds of OpenTelemetry's messaging metrics from 5 ms on.
pub(super) fn durations() -> Histogram {
    Histogram::new([
        0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0,
        60.0, 180.0, 600.0,
    ])
}

/// Powers of four, from one row to a million.
pub(super) fn row_counts() -> Histogram {
    Histogram::new((0..=10).map(|power| f64::from(1 << (2 * power))))
}
