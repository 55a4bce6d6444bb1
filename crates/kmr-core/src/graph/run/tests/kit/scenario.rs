//! Scenarios: the situation in which a test starts.

use std::time::Duration;

use super::{TestConsumer, place, start};
use crate::strategy::Strategy;
use crate::test_reducer::{Behaviour, Collect};

/// Builds a consumer with assigned partitions and mapped records. Its sink collects the partition
/// and offset of each record.
#[derive(Default)]
pub(in crate::graph::run::tests) struct Scenario {
    sink: Collect<(i32, i64)>,
    partitions: Vec<i32>,
    records: Vec<(i32, Vec<i64>)>,
}

impl Scenario {
    /// These partitions are assigned.
    pub(in crate::graph::run::tests) fn assigned(partitions: &[i32]) -> Self {
        Self { partitions: partitions.to_vec(), ..Self::default() }
    }

    /// The sink does not answer until its behaviour changes.
    pub(in crate::graph::run::tests) fn stalled_sink(self) -> Self {
        self.sink.behave(Behaviour::Stall);
        self
    }

    /// No batch is due by age.
    pub(in crate::graph::run::tests) fn patient_sink(mut self) -> Self {
        self.sink = self.sink.with_options(|o| o.with_max_age(Duration::from_secs(3600)));
        self
    }

    /// Records of a partition are fetched and mapped.
    pub(in crate::graph::run::tests) fn mapped(
        mut self,
        number: i32,
        offsets: impl IntoIterator<Item = i64>,
    ) -> Self {
        self.records.push((number, offsets.into_iter().collect()));
        self
    }

    /// Starts the consumer and brings it into this situation.
    pub(in crate::graph::run::tests) async fn start(self) -> (TestConsumer, Collect<(i32, i64)>) {
        let Self { sink, partitions, records } = self;
        let mut consumer = start(Strategy::new().map(place).reduce(sink.clone())).await;
        consumer.assign(&partitions).await;
        let mapped = records.iter().map(|(_, offsets)| offsets.len() as u64).sum();
        for (number, offsets) in records {
            consumer.fetch(number, offsets);
        }
        consumer.until_mapped(mapped).await;
        (consumer, sink)
    }
}
