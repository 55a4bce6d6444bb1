//! The metrics of a consumer: what its tasks record, and the text that a scrape returns.
//!
//! With the feature `metrics`: `recorder` is what tasks call. `families` holds the counters and
//! histograms (`series`), and `partition` the state of each assigned partition, with the
//! `timestamps` of its unfinished records. `scrape` returns everything as text, and `live` encodes
//! what it reads from the running consumer. `stage` is for reducers with metrics of their own, and
//! `descriptors` has the names. A status reads the partitions as a scrape does, and also the
//! `channel`s of stages and the `event_log`. Without the feature, `off` has the same calls, which
//! compile to nothing.
//!
//! Invariants:
//! 1. Tasks record once per batch, poll or call, never once per record.
//! 2. The series of a partition end with its assignment: they are read from the state that the
//!    assignment owns, and are not stored anywhere else.
//! 3. An unknown value has no series. No value is negative.
//! 4. Nothing in the graph depends on a metric.

mod labels;

#[cfg(feature = "metrics")]
mod channel;
#[cfg(feature = "metrics")]
mod descriptors;
#[cfg(feature = "metrics")]
mod event_log;
#[cfg(feature = "metrics")]
mod families;
#[cfg(feature = "metrics")]
mod live;
#[cfg(feature = "metrics")]
mod partition;
#[cfg(feature = "metrics")]
mod recorder;
#[cfg(feature = "metrics")]
mod scrape;
#[cfg(feature = "metrics")]
mod series;
#[cfg(feature = "metrics")]
mod stage;
#[cfg(feature = "metrics")]
mod timestamps;

#[cfg(not(feature = "metrics"))]
mod off;

pub(crate) use self::labels::{AttemptOutcome, FlushCause, Phase};

#[cfg(feature = "metrics")]
pub(crate) use self::channel::StageReading;
#[cfg(feature = "metrics")]
pub(crate) use self::live::{Live, Totals};
#[cfg(feature = "metrics")]
pub(crate) use self::partition::{PartitionMeter, PartitionReading, Progress};
#[cfg(feature = "metrics")]
pub(crate) use self::recorder::{Recorder, StageRecorder};
#[cfg(feature = "metrics")]
pub(crate) use self::scrape::Readings;
#[cfg(feature = "metrics")]
pub use self::{
    scrape::MetricsFormat,
    stage::{Metric, StageMetrics},
};

#[cfg(not(feature = "metrics"))]
pub(crate) use self::off::{PartitionMeter, Progress, Recorder, StageRecorder};
