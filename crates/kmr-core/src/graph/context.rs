//! What every stage is given when it starts.

use std::sync::Arc;

use super::assignment::states::AssignmentStates;
use super::dead_letters::failure_rate::FailureRate;
use super::dead_letters::reread::Rereader;
use super::memory::budget::Budget;
use super::observe::status::StatusBoard;
use crate::stats::Counters;
use crate::util::ordered_watch;

/// What every stage is given when it starts.
#[derive(Clone)]
pub(crate) struct StageContext {
    pub(crate) flow: ordered_watch::Receiver<AssignmentStates>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) board: Arc<StatusBoard>,
    /// Whether the reduce that the map stages feed delivers planned blocks.
    pub(crate) exactly_once: bool,
    /// Decides the jitter of retries.
    pub(crate) seed: u64,
    /// Gets records back for dead letters.
    pub(crate) records: Option<Arc<Rereader>>,
    /// Counts what fails.
    pub(crate) failures: Arc<FailureRate>,
}
