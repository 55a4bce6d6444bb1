//! The state of one assigned partition, from which a scrape computes its lag.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::timestamps::Timestamps;
use crate::member::RecordBatch;
use crate::record::TopicPartition;
use crate::util::future::BoxFuture;

/// How far an assignment is, as the committer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) assignment: u64,
    /// All records below it are finished. `None`: no record is known to be.
    pub(crate) finished_below: Option<i64>,
    /// The offset that was committed last in this assignment.
    pub(crate) committed: Option<i64>,
}

/// Returns the progress of all assignments.
pub(super) type Reporter = Box<dyn Fn() -> BoxFuture<'static, Vec<Progress>> + Send + Sync>;

/// Writes the state of one assigned partition. The series of the partition exist until the last
/// clone is dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct PartitionMeter(pub(super) Option<Arc<PartitionState>>);

/// The state of one assigned partition. [`PartitionMeter`] writes it, and a scrape reads it.
pub(super) struct PartitionState {
    pub(super) partition: TopicPartition,
    pub(super) assignment: u64,
    offsets: Mutex<Offsets>,
    unmapped: Box<dyn Fn() -> usize + Send + Sync>,
}

#[derive(Debug, Default)]
struct Offsets {
    /// The starting position of the assignment.
    start: Option<i64>,
    finished_below: Option<i64>,
    committed: Option<i64>,
    log_end: Option<i64>,
    timestamps: Timestamps,
}

/// The values of one partition at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PartitionReading {
    pub(crate) partition: TopicPartition,
    pub(crate) position: Option<i64>,
    pub(crate) committed: Option<i64>,
    pub(crate) log_end: Option<i64>,
    pub(crate) lag: Option<i64>,
    /// `None`: metrics are not recorded.
    pub(crate) lag_seconds: Option<f64>,
    /// Bytes of records that wait for their mapper.
    pub(crate) unmapped_bytes: u64,
}

impl PartitionMeter {
    /// The assignment starts at `offset`, which is committed or was chosen by a policy.
    pub(crate) fn starts_at(&self, offset: i64, is_committed: bool) {
        self.change(|offsets| {
            offsets.start = Some(offset);
            offsets.committed = offsets.committed.or(is_committed.then_some(offset));
        });
    }

    /// Records were received for the partition. Called once per poll. Reads the timestamps of the
    /// first and the last record, and of those between them only where timestamps differ.
    pub(crate) fn received(&self, batch: &dyn RecordBatch) {
        let Some(state) = &self.0 else { return };
        // A record without a timestamp counts from here.
        let received = std::cell::OnceCell::new();
        let record = |index: usize| {
            let record = batch.record(index);
            let timestamp = record.timestamp_millis();
            (
                record.offset(),
                timestamp.unwrap_or_else(|| *received.get_or_init(|| millis(SystemTime::now()))),
            )
        };
        state.lock().timestamps.add_all(batch.len(), &record);
    }

    /// The end of the log, as the client knows it. Without metrics `read` is not called.
    pub(crate) fn log_end(&self, read: impl FnOnce() -> Option<i64>) {
        self.change(|offsets| offsets.log_end = read().filter(|end| *end >= 0).or(offsets.log_end));
    }

    /// All records below `offset` are finished, as far as `offset` is known. Frees their
    /// timestamps.
    pub(crate) fn finished_below(&self, offset: Option<i64>) {
        self.change(|offsets| offsets.finish(offset));
    }

    fn change(&self, change: impl FnOnce(&mut Offsets)) {
        if let Some(state) = &self.0 {
            change(&mut state.lock());
        }
    }
}

impl Offsets {
    fn finish(&mut self, below: Option<i64>) {
        if let Some(below) = below {
            self.finished_below = self.finished_below.max(Some(below));
            self.timestamps.finished_below(below);
        }
    }
}

impl PartitionState {
    pub(super) fn new(
        partition: TopicPartition,
        assignment: u64,
        unmapped: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { partition, assignment, offsets: Mutex::default(), unmapped: Box::new(unmapped) })
    }

    /// Receives the committer's report of this assignment.
    pub(super) fn progress(&self, progress: &Progress) {
        let mut offsets = self.lock();
        offsets.finish(progress.finished_below);
        offsets.committed = progress.committed.or(offsets.committed);
    }

    /// The values at `now`.
    pub(super) fn read(&self, now: SystemTime) -> PartitionReading {
        let offsets = self.lock();
        let position = offsets.timestamps.end().or(offsets.start);
        // Records may have been received since the end of the log was read.
        let log_end = offsets.log_end.map(|end| end.max(position.unwrap_or(end)));
        let finished = offsets.finished_below.or(offsets.start);
        let age = offsets.timestamps.oldest().map_or(0, |oldest| millis(now).saturating_sub(oldest).max(0));
        PartitionReading {
            partition: self.partition.clone(),
            position,
            committed: offsets.committed,
            log_end,
            lag: log_end.zip(finished).map(|(end, finished)| (end - finished).max(0)),
            lag_seconds: Some(age as f64 / 1_000.0),
            unmapped_bytes: (self.unmapped)() as u64,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Offsets> {
        self.offsets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for PartitionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("PartitionState");
        debug.field("partition", &self.partition).field("offsets", &self.offsets).finish_non_exhaustive()
    }
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::OwnedRecord;
    use crate::test_records::OwnedBatch;

    fn state() -> (PartitionMeter, Arc<PartitionState>) {
        let state = PartitionState::new(TopicPartition::new("t", 0), 1, || 7);
        (PartitionMeter(Some(state.clone())), state)
    }

    fn batch(records: &[(i64, Option<i64>)]) -> OwnedBatch<OwnedRecord> {
        let record = |(offset, timestamp): &(i64, Option<i64>)| {
            let record = OwnedRecord::new("t", 0, *offset);
            timestamp.map_or(record.clone(), |millis| record.with_timestamp_millis(millis))
        };
        OwnedBatch(records.iter().map(record).collect())
    }

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_unfinished_record_and_never_negative() {
        let (meter, state) = state();
        meter.received(&batch(&[(5, Some(1_000)), (6, Some(2_000)), (9, Some(2_500))]));
        assert_eq!(state.read(at(4_000)).lag_seconds, Some(3.0));
        state.progress(&Progress { assignment: 1, finished_below: Some(6), committed: None });
        assert_eq!(state.read(at(4_000)).lag_seconds, Some(2.0));
        state.progress(&Progress { assignment: 1, finished_below: Some(7), committed: Some(6) });
        let reading = state.read(at(4_000));
        assert_eq!((reading.lag_seconds, reading.committed), (Some(1.5), Some(6)), "8 is not in the log");
        assert_eq!(state.read(at(2_000)).lag_seconds, Some(0.0), "the producer's clock is ahead");
        meter.finished_below(Some(10));
        assert_eq!(state.read(at(90_000)).lag_seconds, Some(0.0));
        assert_eq!(state.read(at(90_000)).unmapped_bytes, 7);
    }

    #[test]
    fn a_record_without_a_timestamp_counts_from_its_arrival() {
        let (meter, state) = state();
        meter.received(&batch(&[(5, None)]));
        let lag = state.read(SystemTime::now() + Duration::from_secs(60)).lag_seconds.unwrap();
        assert!((60.0..70.0).contains(&lag), "{lag}");
    }

    #[test]
    fn unknown_offsets_are_absent_and_known_ones_are_not_negative() {
        let (meter, state) = state();
        meter.log_end(|| Some(-1_001));
        let reading = state.read(at(0));
        let offsets = (reading.position, reading.committed, reading.log_end, reading.lag);
        assert_eq!(offsets, (None, None, None, None));
        meter.starts_at(7, true);
        meter.log_end(|| Some(20));
        let reading = state.read(at(0));
        let offsets = (reading.position, reading.committed, reading.log_end, reading.lag);
        assert_eq!(offsets, (Some(7), Some(7), Some(20), Some(13)));
        meter.received(&batch(&[(29, Some(0))]));
        meter.log_end(|| None);
        meter.finished_below(Some(30));
        let reading = state.read(at(0));
        assert_eq!((reading.position, reading.log_end, reading.lag), (Some(30), Some(30), Some(0)));
    }
}
