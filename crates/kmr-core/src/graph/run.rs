//! Puts the tasks of a consumer together and runs them: on Kafka, or on whatever else is behind the seam.

use std::sync::Arc;

use super::assignment::states::AssignmentStates;
use super::build::start_stages;
use super::context::StageContext;
use super::control::Controls;
use super::coordinator::{Coordinator, Ending, Setup};
use super::dead_letters::failure_rate::FailureRate;
use super::dead_letters::reread;
use super::dead_letters::reread::Rereader;
use super::memory::budget::Budget;
use super::options::GraphOptions;
use super::pipeline::Pipeline;
use crate::error::Error;
use crate::member::Connector;
use crate::stats::Counters;
use crate::telemetry;
use crate::util::ordered_watch;

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

impl Graph {
    /// Starts the stages, which check their sinks, then connects, then runs until it is told to stop or something fails, and ends
    /// in order.
    ///
    /// # Errors
    /// See [`Coordinator::run`]; and whatever keeps a stage or the client from starting.
    pub(crate) async fn run(mut self, pipeline: Pipeline) -> Result<Ending, Error> {
        let (flow, flow_receiver) = ordered_watch::channel(AssignmentStates::default());
        let context = StageContext {
            flow: flow_receiver,
            budget: self.budget.clone(),
            counters: self.counters.clone(),
            board: self.controls.board.clone(),
            exactly_once: self.options.exactly_once,
            seed: self.seed,
            records: Some(Rereader::new(self.connector.clone(), reread::limit(self.options.drain_timeout))),
            failures: Arc::new(FailureRate::new(self.options.breaker.clone())),
        };
        let stages = tokio::select! {
            biased;
            // Nothing has been read yet: there is nothing to end in order.
            Some(stop) = self.controls.stops.recv() => {
                telemetry::stopped_early(stop.source);
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
