//! The recorder without the feature `metrics`. Its calls do nothing, and their arguments are not
//! computed where they are closures or iterators.

use std::time::Duration;

use tokio::sync::mpsc::WeakSender;

use super::labels::{AttemptOutcome, FlushCause, Phase};
use crate::event::Event;
use crate::member::RecordBatch;
use crate::record::TopicPartition;
use crate::util::future::BoxFuture;

#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(());

#[derive(Clone, Debug, Default)]
pub(crate) struct StageRecorder(());

#[derive(Clone, Debug, Default)]
pub(crate) struct PartitionMeter(());

/// Measures nothing.
#[derive(Debug)]
pub(crate) struct Timer;

/// What a reporter returns. No scrape calls it without the feature.
#[allow(dead_code, reason = "a reporter makes it, and is never called")]
pub(crate) struct Progress {
    pub(crate) assignment: u64,
    pub(crate) finished_below: Option<i64>,
    pub(crate) committed: Option<i64>,
}

#[allow(clippy::unused_self, reason = "the same calls as with the feature")]
impl Recorder {
    #[inline(always)]
    pub(crate) fn phase(&self, _: Phase) -> Timer {
        Timer
    }

    #[inline(always)]
    pub(crate) fn stage(&self, _: &str) -> StageRecorder {
        StageRecorder(())
    }

    #[inline(always)]
    pub(crate) fn partition(
        &self,
        _: &TopicPartition,
        _: u64,
        _: impl Fn() -> usize + Send + Sync + 'static,
    ) -> PartitionMeter {
        PartitionMeter(())
    }

    #[inline(always)]
    pub(crate) fn event(&self, _: impl FnOnce() -> Event) {}

    #[inline(always)]
    pub(crate) fn events(&self, _: impl Iterator<Item = Event>) {}

    #[inline(always)]
    pub(crate) fn channel<T>(&self, _: &str, _: usize, _: WeakSender<T>) {}

    #[inline(always)]
    pub(crate) fn set_reporter(
        &self,
        _: impl Fn() -> BoxFuture<'static, Vec<Progress>> + Send + Sync + 'static,
    ) {
    }

    #[inline(always)]
    pub(crate) fn dead_letters<'d>(&self, _: impl Iterator<Item = (&'d str, Option<&'d str>)>) {}

    #[inline(always)]
    pub(crate) fn commit(&self, _: Duration, _: impl Iterator<Item = &'static str>) {}

    #[inline(always)]
    pub(crate) fn rebalance(&self, _: &'static str, _: Duration) {}

    #[inline(always)]
    pub(crate) fn watchdog(&self, _: &'static str) {}

    #[inline(always)]
    pub(crate) fn breaker_tripped(&self) {}
}

#[allow(clippy::unused_self, reason = "the same calls as with the feature")]
impl StageRecorder {
    #[inline(always)]
    pub(crate) fn batch(&self, _: FlushCause, _: usize) {}

    #[inline(always)]
    pub(crate) fn delivery(&self) -> Timer {
        Timer
    }

    #[inline(always)]
    pub(crate) fn failed(&self, _: &str) {}

    #[inline(always)]
    pub(crate) fn attempt(&self, _: AttemptOutcome, _: Option<&str>, _: Duration) {}
}

#[allow(clippy::unused_self, reason = "the same calls as with the feature")]
impl PartitionMeter {
    #[inline(always)]
    pub(crate) fn starts_at(&self, _: i64, _: bool) {}

    #[inline(always)]
    pub(crate) fn received(&self, _: &dyn RecordBatch) {}

    #[inline(always)]
    pub(crate) fn log_end(&self, _: impl FnOnce() -> Option<i64>) {}

    #[inline(always)]
    pub(crate) fn finished_below(&self, _: Option<i64>) {}
}
