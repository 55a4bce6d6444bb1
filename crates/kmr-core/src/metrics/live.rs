//! Encodes what a scrape reads from the running consumer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::descriptors::{self as describe, Descriptor};
use super::partition::PartitionReading;
use super::series::Labels;
use crate::health::{Health, PartitionHealth};
use crate::record::TopicPartition;

/// The counters of `stats`, which a consumer has without the feature, too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) records: u64,
    pub(crate) record_bytes: u64,
    /// Rows that the sink accepted, by stage.
    pub(crate) rows: BTreeMap<String, u64>,
    pub(crate) commits: u64,
    pub(crate) rebalances: u64,
    pub(crate) resets: u64,
    pub(crate) replacements: u64,
}

/// What a scrape reads from the consumer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    pub(crate) group: Arc<str>,
    pub(crate) totals: Totals,
    pub(crate) health: Health,
    pub(crate) memory_budget: u64,
    pub(crate) memory_used: u64,
    /// Whether a delivery is repeated, because a sink did not accept it.
    pub(crate) sink_fails: bool,
}

/// [`Live`] with the values of the metrics' own state, for one scrape.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) live: Live,
    pub(super) partitions: Vec<PartitionReading>,
    pub(super) breaker_tripped: bool,
}

/// Encodes the values that are read at the scrape.
#[derive(Debug, Default)]
pub(super) struct LiveCollector(Mutex<Snapshot>);

impl LiveCollector {
    /// Sets what the next encoding shows.
    pub(super) fn set(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}

impl Collector for LiveCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Snapshot { live, breaker_tripped, .. } = &*snapshot;
        let to = &mut encoder;
        gauge(to, describe::CONNECTED, live.health.connected)?;
        gauge(to, describe::ASSIGNED, snapshot.partitions.len() as u64)?;
        gauge(to, describe::MEMORY_BUDGET, live.memory_budget)?;
        gauge(to, describe::MEMORY_USED, live.memory_used)?;
        gauge(to, describe::BREAKER, *breaker_tripped)?;
        gauge(to, describe::SCALABLE_LAG, snapshot.scalable_lag())?;
        let Totals { records, record_bytes, rows, commits, rebalances, resets, replacements } = &live.totals;
        counter(to, describe::RECORDS, *records)?;
        counter(to, describe::RECORD_BYTES, *record_bytes)?;
        counter(to, describe::COMMITS, *commits)?;
        counter(to, describe::REBALANCES, *rebalances)?;
        counter(to, describe::RESETS, *resets)?;
        counter(to, describe::REPLACEMENTS, *replacements)?;
        let rows = rows.iter().map(|(stage, rows)| (vec![("stage", stage.as_str().into())], *rows));
        series(to, describe::DELIVERED_ROWS, MetricType::Counter, rows)?;
        snapshot.encode_partitions(to)
    }
}

impl Snapshot {
    /// The lag that another consumer could take over: one takes over whole partitions, and this one
    /// keeps at least one. None while a sink fails, because all consumers write to it.
    fn scalable_lag(&self) -> u64 {
        if self.live.sink_fails {
            return 0;
        }
        let lags = || self.partitions.iter().filter_map(|reading| u64::try_from(reading.lag?).ok());
        lags().sum::<u64>() - lags().max().unwrap_or(0)
    }

    fn encode_partitions(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let labelled: Vec<(Labels, &PartitionReading)> =
            self.partitions.iter().map(|reading| (self.labels(&reading.partition), reading)).collect();
        let offsets = |of: fn(&PartitionReading) -> Option<i64>| {
            // An offset is not negative.
            let offset = move |reading: &PartitionReading| u64::try_from(of(reading)?).ok();
            labelled.iter().filter_map(move |(labels, reading)| Some((labels.clone(), offset(reading)?)))
        };
        let seconds =
            labelled.iter().filter_map(|(labels, reading)| Some((labels.clone(), reading.lag_seconds?)));
        series(to, describe::POSITION, MetricType::Gauge, offsets(|reading| reading.position))?;
        series(to, describe::COMMITTED_OFFSET, MetricType::Gauge, offsets(|reading| reading.committed))?;
        series(to, describe::LOG_END, MetricType::Gauge, offsets(|reading| reading.log_end))?;
        series(to, describe::LAG, MetricType::Gauge, offsets(|reading| reading.lag))?;
        series(to, describe::LAG_SECONDS, MetricType::Gauge, seconds)?;
        // Known from the first health check on, a second after the assignment.
        let health = |of: fn(&PartitionHealth) -> f64| {
            labelled.iter().filter_map(move |(labels, reading)| {
                Some((labels.clone(), of(self.live.health.partitions.get(&reading.partition)?)))
            })
        };
        series(to, describe::UNFINISHED, MetricType::Gauge, health(|health| health.age.as_secs_f64()))?;
        series(to, describe::LATE, MetricType::Gauge, health(|health| f64::from(health.late)))?;
        series(to, describe::PAUSED, MetricType::Gauge, health(|health| f64::from(health.paused)))
    }

    fn labels(&self, partition: &TopicPartition) -> Labels {
        let number = partition.partition().to_string().into();
        vec![
            ("group", self.live.group.clone()),
            ("topic", partition.shared_topic().clone()),
            ("partition", number),
        ]
    }
}

/// A value of a counter or gauge.
trait Value: Copy {
    fn as_f64(self) -> f64;
    fn as_u64(self) -> Option<u64>;
}

impl Value for u64 {
    fn as_f64(self) -> f64 {
        self as f64
    }

    fn as_u64(self) -> Option<u64> {
        Some(self)
    }
}

impl Value for f64 {
    fn as_f64(self) -> f64 {
        self
    }

    fn as_u64(self) -> Option<u64> {
        None
    }
}

fn gauge(to: &mut DescriptorEncoder<'_>, descriptor: Descriptor, value: impl Into<u64>) -> fmt::Result {
    series(to, descriptor, MetricType::Gauge, std::iter::once((Vec::new(), value.into())))
}

fn counter(to: &mut DescriptorEncoder<'_>, descriptor: Descriptor, value: u64) -> fmt::Result {
    series(to, descriptor, MetricType::Counter, std::iter::once((Vec::new(), value)))
}

/// Encodes a counter or gauge with its series. A metric without a series is left out.
fn series<V: Value>(
    to: &mut DescriptorEncoder<'_>,
    descriptor: Descriptor,
    kind: MetricType,
    series: impl Iterator<Item = (Labels, V)>,
) -> fmt::Result {
    let mut series = series.peekable();
    if series.peek().is_none() {
        return Ok(());
    }
    let (name, unit) = descriptor.parts();
    let mut metric = to.encode_descriptor(name, descriptor.help, unit.as_ref(), kind)?;
    for (labels, value) in series {
        let mut one = metric.encode_family(&labels)?;
        let encoded = match (kind, value.as_u64()) {
            (MetricType::Counter, Some(value)) => one.encode_counter::<NoLabelSet, u64, f64>(&value, None),
            (_, Some(value)) => one.encode_gauge(&value),
            (_, None) => one.encode_gauge(&value.as_f64()),
        };
        encoded?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(lags: &[Option<i64>], sink_fails: bool) -> Snapshot {
        let reading = |(number, lag): (i32, &Option<i64>)| PartitionReading {
            partition: TopicPartition::new("events", number),
            position: None,
            committed: None,
            log_end: None,
            lag: *lag,
            lag_seconds: None,
            unmapped_bytes: 0,
        };
        let partitions = (0..).zip(lags).map(reading).collect();
        Snapshot { live: Live { sink_fails, ..Live::default() }, partitions, breaker_tripped: false }
    }

    #[test]
    fn scalable_lag_is_what_another_consumer_could_take_over() {
        for (lags, expected) in [
            (&[][..], 0),
            (&[Some(900)], 0),
            (&[Some(900), Some(0), None], 0),
            (&[Some(900), Some(900), Some(100)], 1_000),
        ] {
            assert_eq!(snapshot(lags, false).scalable_lag(), expected, "{lags:?}");
            assert_eq!(snapshot(lags, true).scalable_lag(), 0, "{lags:?}");
        }
    }
}
