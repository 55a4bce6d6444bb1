//! A complete strategy with its types erased: its stages and how to build them.

use std::fmt;
use std::sync::Arc;

use super::context::StageContext;
use super::dead_letters::ErrorBranch;
use super::map::MapPhase;
use crate::error::Error;
use crate::reducer::{BatchOptions, Reducer, TargetTopic};
use crate::stage::{MapOptions, Stage};
use crate::util::future::BoxFuture;
use crate::util::supervise::Tasks;

/// A graph under construction. It grows from the last stage to the first.
pub struct Build {
    pub(crate) context: StageContext,
    pub(crate) errors: Arc<dyn ErrorBranch>,
    pub(crate) tasks: Tasks,
    pub(crate) map: Option<Arc<dyn MapPhase>>,
    pub(crate) map_options: MapOptions,
}

/// Builds all stages but `reduce_err`.
pub(crate) type BuildGraph = Box<dyn FnOnce(Build) -> BoxFuture<'static, Result<Build, Error>> + Send>;

/// Builds `reduce_err`.
pub(crate) type BuildErrors =
    Box<dyn FnOnce(StageContext) -> BoxFuture<'static, Result<(Arc<dyn ErrorBranch>, Tasks), Error>> + Send>;

/// A complete strategy that a consumer can run.
pub struct Pipeline {
    pub(crate) build: BuildGraph,
    pub(crate) errors: Option<(ReduceInfo, BuildErrors)>,
    pub(crate) reduces: Vec<ReduceInfo>,
    /// The options of the map stages before the first reduce.
    pub(crate) options: MapOptions,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.errors.as_ref().map(|(info, _)| info);
        let mut text = f.debug_struct("Pipeline");
        text.field("options", &self.options)
            .field("reduces", &self.reduces)
            .field("reduce_err", &errors)
            .finish()
    }
}

/// A reduce stage and its batching options.
#[derive(Clone, Debug)]
pub(crate) struct ReduceInfo {
    pub(crate) stage: Stage,
    pub(crate) options: BatchOptions,
    /// The Kafka topics that its reducer writes to.
    pub(crate) targets: Vec<TargetTopic>,
}

impl ReduceInfo {
    pub(crate) fn new<R: Reducer>(stage: Stage, reducer: &R) -> Self {
        Self { stage, options: reducer.options(), targets: reducer.target_topics() }
    }
}
