//! The demo's sink: counts how often each offset arrived as a row and as a dead letter.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kmr_core::{
    Attempt, BatchOptions, BoxError, Chunk, Delivered, Delivery, DeliveryError, Reducer, async_trait,
};

/// The row that the map stage makes of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// The number that the producer wrote into the message. It has to equal the offset.
    pub(crate) id: u64,
    pub(crate) value: f64,
}

/// Arrived rows and dead letters, by partition.
#[derive(Debug)]
pub(crate) struct Arrivals {
    partitions: Vec<Mutex<PartitionArrivals>>,
}

/// Arrived rows and dead letters of one partition, as a count for each offset.
#[derive(Debug, Default)]
pub(crate) struct PartitionArrivals {
    pub(crate) rows: Counts,
    pub(crate) dead_letters: Counts,
    /// Rows whose number differs from their offset: they have the payload of another record.
    pub(crate) mixed_up: u64,
    /// Sum of all values, as a real reducer would compute it.
    pub(crate) sum: f64,
}

/// Number of arrivals of each offset; saturates at 255.
#[derive(Debug, Default)]
pub(crate) struct Counts(Vec<u8>);

impl Counts {
    fn add(&mut self, offset: i64) {
        // Kafka's offsets are not negative.
        let at = usize::try_from(offset).unwrap_or_default();
        if at >= self.0.len() {
            self.0.resize(at + 1, 0);
        }
        self.0[at] = self.0[at].saturating_add(1);
    }

    /// Number of arrivals of `offset`.
    pub(crate) fn of(&self, offset: u64) -> u8 {
        usize::try_from(offset).ok().and_then(|at| self.0.get(at)).copied().unwrap_or(0)
    }

    /// Offsets that arrived at least once.
    pub(crate) fn distinct(&self) -> u64 {
        self.0.iter().filter(|count| **count > 0).count() as u64
    }

    /// Arrivals after the first, over all offsets.
    pub(crate) fn surplus(&self) -> u64 {
        self.0.iter().map(|count| u64::from(count.saturating_sub(1))).sum()
    }
}

impl Arrivals {
    pub(crate) fn new(partitions: i32) -> Self {
        Self { partitions: (0..partitions).map(|_| Mutex::default()).collect() }
    }

    /// Arrivals of `partition`; `None` if the topic does not have it.
    pub(crate) fn of(&self, partition: i32) -> Option<MutexGuard<'_, PartitionArrivals>> {
        let partition = self.partitions.get(usize::try_from(partition).ok()?)?;
        Some(partition.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add_rows(&self, rows: &[Row]) -> Result<(), String> {
        // A chunk has rows of one partition, so one lock serves many rows.
        for run in rows.chunk_by(|a, b| a.partition == b.partition) {
            let mut arrivals = self.known(run[0].partition)?;
            for row in run {
                arrivals.rows.add(row.offset);
                arrivals.mixed_up += u64::from(row.id != row.offset.unsigned_abs());
                arrivals.sum += row.value;
            }
        }
        Ok(())
    }

    /// Counts a dead letter.
    pub(crate) fn add_dead_letter(&self, partition: i32, offset: i64) -> Result<(), String> {
        self.known(partition)?.dead_letters.add(offset);
        Ok(())
    }

    fn known(&self, partition: i32) -> Result<MutexGuard<'_, PartitionArrivals>, String> {
        self.of(partition)
            .ok_or_else(|| format!("a record of partition {partition}, which the topic does not have"))
    }
}

/// The reducer. It counts a batch when it is delivered, never before.
#[derive(Debug)]
pub(crate) struct Tally {
    open: Vec<Row>,
    arrivals: Arc<Arrivals>,
}

impl Tally {
    pub(crate) fn new(arrivals: Arc<Arrivals>) -> Self {
        Self { open: Vec::new(), arrivals }
    }
}

#[async_trait]
impl Reducer for Tally {
    type Rows = Vec<Row>;
    type Output = ();

    fn options(&self) -> BatchOptions {
        BatchOptions::default().with_max_rows(8_192).with_max_age(Duration::from_millis(50))
    }

    fn new_rows(&self) -> Vec<Row> {
        Vec::new()
    }

    fn accept(&mut self, mut chunk: Chunk<Vec<Row>>) -> Result<(), BoxError> {
        self.open.append(&mut chunk.rows);
        Ok(())
    }

    fn freeze(&mut self) -> Result<Box<dyn Delivery<Output = ()>>, BoxError> {
        let next = Vec::with_capacity(self.open.len());
        Ok(Box::new(Batch { rows: std::mem::replace(&mut self.open, next), arrivals: self.arrivals.clone() }))
    }
}

struct Batch {
    rows: Vec<Row>,
    arrivals: Arc<Arrivals>,
}

#[async_trait]
impl Delivery for Batch {
    type Output = ();

    async fn deliver(&self, _: Attempt) -> Result<Delivered<()>, DeliveryError> {
        self.arrivals.add_rows(&self.rows).map_err(DeliveryError::fatal)?;
        Ok(Delivered::new(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(partition: i32, offset: i64) -> Row {
        Row { partition, offset, id: offset.unsigned_abs(), value: 1.0 }
    }

    #[test]
    fn arrivals_are_counted_by_offset() {
        let arrivals = Arrivals::new(2);
        arrivals.add_rows(&[row(0, 0), row(0, 2), row(1, 5), row(0, 2)]).unwrap();
        let zero = arrivals.of(0).unwrap();
        assert_eq!((zero.rows.of(0), zero.rows.of(1), zero.rows.of(2), zero.rows.of(99)), (1, 0, 2, 0));
        assert_eq!((zero.rows.distinct(), zero.rows.surplus()), (2, 1));
        assert_eq!(arrivals.of(1).unwrap().rows.distinct(), 1);
        assert_eq!(zero.mixed_up, 0);
        assert!(arrivals.of(2).is_none() && arrivals.of(-1).is_none());
    }

    #[test]
    fn a_payload_of_another_record_is_detected() {
        let arrivals = Arrivals::new(1);
        arrivals.add_rows(&[Row { id: 7, ..row(0, 8) }]).unwrap();
        assert_eq!(arrivals.of(0).unwrap().mixed_up, 1);
        assert!(arrivals.add_rows(&[row(3, 0)]).unwrap_err().contains("partition 3"));
    }
}
