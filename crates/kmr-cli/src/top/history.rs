//! The last statuses of one consumer, and the rates that follow from them.

use std::collections::{BTreeMap, VecDeque};

use super::status::{PartitionName, Status};

/// Rates are means over this time, in milliseconds.
const WINDOW: i64 = 5_500;
/// Samples of throughput that are kept, as many as the widest terminal has columns.
const KEPT: usize = 300;

/// A status that is older by less is late. One that is older by more has another clock.
const OUT_OF_ORDER: i64 = 10_000;

#[derive(Clone, Debug)]
struct Sample {
    time: i64,
    records: u64,
    rows: u64,
    positions: BTreeMap<PartitionName, i64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// The samples of the window, and the one before it.
    samples: VecDeque<Sample>,
    /// Records per second between neighbouring samples, the newest last.
    throughput: VecDeque<f64>,
}

impl History {
    pub(super) fn add(&mut self, status: &Status) {
        let sample = Sample {
            time: status.time,
            records: status.totals.records,
            rows: status.totals.rows,
            positions: status.positions(),
        };
        if let Some(last) = self.samples.back() {
            // Two requests at once may be answered in either order.
            if (0..OUT_OF_ORDER).contains(&last.time.saturating_sub(sample.time)) {
                return;
            }
            // Another process, or another clock.
            if sample.time < last.time || sample.records < last.records {
                *self = Self::default();
            }
        }
        if let Some(rate) = self.samples.back().and_then(|last| rate(last, &sample, |s| s.records as f64)) {
            if self.throughput.len() == KEPT {
                self.throughput.pop_front();
            }
            self.throughput.push_back(rate);
        }
        while self.samples.len() >= 2 && sample.time.saturating_sub(self.samples[0].time) > WINDOW {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    pub(super) fn records_per_second(&self) -> Option<f64> {
        self.mean(|sample| Some(sample.records as f64))
    }

    pub(super) fn rows_per_second(&self) -> Option<f64> {
        self.mean(|sample| Some(sample.rows as f64))
    }

    /// Offsets per second that a partition received.
    pub(super) fn partition_rate(&self, partition: &PartitionName) -> Option<f64> {
        self.mean(|sample| sample.positions.get(partition).map(|position| *position as f64))
    }

    /// Records per second between neighbouring statuses, the newest last.
    pub(super) fn throughput(&self) -> impl DoubleEndedIterator<Item = f64> {
        self.throughput.iter().copied()
    }

    fn mean(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let last = self.samples.back()?;
        // A partition that was assigned in the window is not in its first samples.
        let first = self.samples.iter().find(|sample| value(sample).is_some())?;
        let (before, now) = (value(first)?, value(last)?);
        rate(first, last, |sample| if sample.time == last.time { now } else { before })
    }
}

/// Change per second. A value that falls, as after a seek, has no rate.
fn rate(first: &Sample, last: &Sample, value: impl Fn(&Sample) -> f64) -> Option<f64> {
    let seconds = last.time.saturating_sub(first.time) as f64 / 1_000.0;
    let change = value(last) - value(first);
    (seconds > 0.0 && change >= 0.0).then(|| change / seconds)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(time: i64, records: u64, position: Option<i64>) -> Status {
        let value = json!({
            "time": time, "totals": { "records": records, "rows": 2 * records },
            "partitions": [{ "topic": "t", "partition": 0, "position": position }],
        });
        serde_json::from_value(value).unwrap()
    }

    fn name() -> PartitionName {
        serde_json::from_value(json!({ "topic": "t", "partition": 0 })).unwrap()
    }

    #[test]
    fn rates_are_means_of_the_last_seconds() {
        let mut history = History::default();
        assert_eq!(history.records_per_second(), None);
        history.add(&status(1_000, 100, None));
        assert_eq!(history.records_per_second(), None, "one status has no rate");
        history.add(&status(2_000, 200, Some(10)));
        history.add(&status(3_000, 400, Some(30)));
        assert_eq!((history.records_per_second(), history.rows_per_second()), (Some(150.0), Some(300.0)));
        assert_eq!(history.partition_rate(&name()), Some(20.0), "from its first position on");
        assert_eq!(history.throughput().collect::<Vec<_>>(), [100.0, 200.0]);
        for second in 4..30 {
            history.add(&status(second * 1_000, 400, Some(30)));
        }
        assert_eq!(history.records_per_second(), Some(0.0));
        assert!(history.samples.len() <= 7);
    }

    #[test]
    fn statuses_far_apart_have_rates_too() {
        let mut history = History::default();
        for minute in 0..3 {
            history.add(&status(minute * 60_000, 600 * minute as u64, None));
        }
        assert_eq!(history.records_per_second(), Some(10.0));
    }

    #[test]
    fn a_restart_and_a_repeated_status_have_no_rate() {
        let mut history = History::default();
        history.add(&status(1_000, 100, Some(50)));
        history.add(&status(2_000, 200, Some(20)));
        assert_eq!(history.partition_rate(&name()), None, "a seek");
        history.add(&status(2_000, 999, Some(20)));
        assert_eq!(history.records_per_second(), Some(100.0));
        history.add(&status(1_500, 150, Some(20)));
        assert_eq!(history.records_per_second(), Some(100.0), "an answer that was overtaken");
        history.add(&status(3_000, 5, Some(20)));
        assert_eq!((history.records_per_second(), history.throughput().count()), (None, 0));
    }
}
