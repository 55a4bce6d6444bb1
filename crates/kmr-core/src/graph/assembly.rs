//! Puts the tasks of a consumer together and runs them: on Kafka, or on whatever else is behind the seam.

use std::sync::Arc;
use std::time::Duration;

use super::breaker::Failures;
use super::budget::Budget;
use super::control::Controls;
use super::coordinator::{Coordinator, Ending, Setup, StopRequest};
use super::flow::Flow;
use super::intake::TURNS;
use super::reread::{self, Rereader};
use super::watch;
use super::watchdog::Thresholds;
use super::wiring::{StageContext, start_stages};
use crate::breaker::Breaker;
use crate::config::{ResetPolicy, Until};
use crate::error::Error;
use crate::listeners::Listeners;
use crate::member::Connector;
use crate::stats::Counters;
use crate::strategy::Pipeline;
use crate::telemetry;

/// A consumer that is ready to run.
pub(crate) struct Graph {
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) controls: Controls,
    pub(crate) budget: Arc<Budget>,
    pub(crate) counters: Arc<Counters>,
    /// Decides the jitter of retries.
    pub(crate) seed: u64,
    pub(crate) options: GraphOptions,
}

/// How the graph runs: what users set on the builder, as far as it is not the client's.
#[derive(Clone, Debug)]
pub(crate) struct GraphOptions {
    pub(crate) commit_interval: Duration,
    pub(crate) drain_deadline: Duration,
    /// How long it is tried to put a new client in the place of one that failed.
    pub(crate) rebuild_limit: Duration,
    /// Where a partition goes on whose offset is not in the log any more.
    pub(crate) out_of_range: ResetPolicy,
    /// When a partition that does not get on is warned of, and when something is done about it.
    pub(crate) thresholds: Thresholds,
    /// Where a bounded run ends.
    pub(crate) until: Option<Until>,
    pub(crate) listeners: Listeners,
    /// Blocks are planned before they are delivered, and delivered under the token of their plan.
    pub(crate) exactly_once: bool,
    /// When too many records have failed.
    pub(crate) breaker: Option<Breaker>,
    /// Takes in a row with the intake waiting for its turn.
    pub(crate) turns: u32,
}

impl Default for GraphOptions {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_secs(1),
            drain_deadline: Duration::from_secs(180),
            rebuild_limit: Duration::from_secs(600),
            out_of_range: ResetPolicy::Fail,
            thresholds: Thresholds {
                warn_after: Duration::from_secs(60),
                heal_after: Some(Duration::from_secs(900)),
            },
            until: None,
            listeners: Listeners::default(),
            exactly_once: false,
            breaker: Some(Breaker::default()),
            turns: TURNS,
        }
    }
}

impl Graph {
    /// Starts the stages, which check their sinks, then connects, then runs until it is told to stop or something fails, and ends
    /// in order.
    ///
    /// # Errors
    /// See [`Coordinator::run`]; and whatever keeps a stage or the client from starting.
    pub(crate) async fn run(mut self, pipeline: Pipeline) -> Result<Ending, Error> {
        let (flow, flow_receiver) = watch::channel(Flow::default());
        let context = StageContext {
            flow: flow_receiver,
            budget: self.budget.clone(),
            counters: self.counters.clone(),
            board: self.controls.board.clone(),
            exactly_once: self.options.exactly_once,
            seed: self.seed,
            records: Some(Rereader::new(self.connector.clone(), reread::limit(self.options.drain_deadline))),
            failures: Arc::new(Failures::new(self.options.breaker.clone())),
        };
        let stages = tokio::select! {
            biased;
            // Nothing has been read yet: there is nothing to end in order.
            Some(StopRequest(why)) = self.controls.stops.recv() => {
                telemetry::stopped_early(why);
                return Ok(Ending::default());
            }
            stages = start_stages(pipeline, context) => stages?,
        };
        let Self { connector, controls, budget, counters, seed, options } = self;
        let setup = Setup { connector, budget, counters, options, seed };
        Coordinator::new(setup, controls, flow, stages).run().await
    }
}

#[cfg(test)]
mod tests;
