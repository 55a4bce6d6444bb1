//! The dead-letter sink of simulated runs.

use async_trait::async_trait;

use super::bounds::Bounds;
use super::cluster::{Cluster, ClusterState};
use super::sinks::attempt;
use crate::dead_letter::DeadLetter;
use crate::error::BoxError;
use crate::record::TopicPartition;
use crate::reducer::{Attempt, BatchOptions, Chunk, Delivered, Delivery, DeliveryError, Reducer};

/// The dead-letter sink of a simulated run. It implements [`Reducer`].
pub struct SimDeadLetters {
    cluster: Cluster,
    bounds: Bounds,
    options: BatchOptions,
    open: Vec<DeadLetter>,
}

impl SimDeadLetters {
    pub(super) fn new(cluster: Cluster, bounds: Bounds, options: BatchOptions) -> Self {
        Self { cluster, bounds, options, open: Vec::new() }
    }
}

impl std::fmt::Debug for SimDeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDeadLetters").field("options", &self.options).finish()
    }
}

#[async_trait]
impl Reducer for SimDeadLetters {
    type Rows = Vec<DeadLetter>;
    type Output = ();

    fn options(&self) -> BatchOptions {
        self.options.clone()
    }

    fn new_rows(&self) -> Vec<DeadLetter> {
        Vec::new()
    }

    fn accept(&mut self, chunk: Chunk<Vec<DeadLetter>>) -> Result<(), BoxError> {
        self.open.extend(chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        let dead_letters = std::mem::take(&mut self.open);
        let mut state = self.cluster.lock();
        for dead_letter in &dead_letters {
            state.check_dead_letter(dead_letter);
            self.bounds.check_delivery(&mut state, &dead_letter.partition, dead_letter.last_offset);
        }
        drop(state);
        let place =
            |dead_letter: DeadLetter| (dead_letter.partition, (dead_letter.offset, dead_letter.last_offset));
        let places = dead_letters.into_iter().map(place).collect();
        Ok(Box::new(DeadLetterBatch { cluster: self.cluster.clone(), places }))
    }
}

struct DeadLetterBatch {
    cluster: Cluster,
    /// The partition and the offsets of each dead letter.
    places: Vec<(TopicPartition, (i64, i64))>,
}

#[async_trait]
impl Delivery for DeadLetterBatch {
    type Output = ();

    async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
        let write = |state: &mut ClusterState| {
            state.note(format_args!("the dead-letter sink stores {}", self.places.len()));
            for (partition, offsets) in &self.places {
                state.oracle.dead_letter(partition, *offsets);
            }
        };
        attempt(&self.cluster, "the dead-letter sink", write).await?;
        Ok(Delivered::new(()))
    }
}

impl ClusterState {
    /// A dead letter must have its record, or the reason why the record is missing.
    fn check_dead_letter(&mut self, dead_letter: &DeadLetter) {
        let record = dead_letter.record.as_ref();
        let matches = |record: &crate::record::OwnedRecord| {
            record.offset() == dead_letter.offset
                && record.partition() == dead_letter.partition.partition()
                && record.topic() == dead_letter.partition.topic()
        };
        if record.is_some_and(|record| !matches(record))
            || record.is_none() == dead_letter.missing_reason.is_none()
        {
            let what = format!("{dead_letter} has {record:?}, missing: {:?}", dead_letter.missing_reason);
            self.violate("a dead letter has its record or a reason", what);
        }
    }
}
