//! The parts of a consumer that all its stages share.

use std::sync::Arc;

use super::assignment::states::AssignmentStates;
use super::dead_letters::failure_rate::FailureRate;
use super::dead_letters::reread::Rereader;
use super::memory::budget::Budget;
use super::observe::status::StatusBoard;
use crate::stats::Counters;
use crate::util::ordered_watch;

/// The parts of a consumer that every stage receives when it starts.
#[derive(Clone)]
pub(crate) struct StageContext {
    pub(crate) assignments: ordered_watch::Receiver<AssignmentStates>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) board: Arc<StatusBoard>,
    /// Whether the first reduce stage delivers planned blocks.
    pub(crate) exactly_once: bool,
    /// Decides the jitter of retries.
    pub(crate) seed: u64,
    /// Reads records again for dead letters.
    pub(crate) records: Option<Arc<Rereader>>,
    /// Counts failed records for the circuit breaker.
    pub(crate) failures: Arc<FailureRate>,
}
